//! Sets how a statically linked C library looks up names.

/// Looks up hosts only in `/etc/hosts` and by DNS, and users only in `/etc/passwd`. Otherwise a static program loads the
/// modules that `/etc/nsswitch.conf` names, as `resolve`, `myhostname` or `mdns4_minimal`. They bring the system's glibc
/// with them, and if that is not exactly the version that is linked in, the process crashes [seen: SIGFPE]. Does nothing
/// unless glibc is linked statically.
pub fn keep_to_files_and_dns() {
    #[cfg(all(target_os = "linux", target_env = "gnu", target_feature = "crt-static"))]
    {
        use std::ffi::{CStr, c_char, c_int};

        unsafe extern "C" {
            /// From nss.h; 0 or -1.
            fn __nss_configure_lookup(database: *const c_char, services: *const c_char) -> c_int;
        }
        let databases: [(&CStr, &CStr); 2] = [(c"hosts", c"files dns"), (c"passwd", c"files")];
        for (database, services) in databases {
            // SAFETY: glibc reads two strings that live as long as the program, before there are other threads.
            let failed = unsafe { __nss_configure_lookup(database.as_ptr(), services.as_ptr()) } != 0;
            assert!(!failed, "glibc knows the database {database:?}");
        }
    }
}
