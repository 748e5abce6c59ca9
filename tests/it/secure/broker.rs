//! Brokers with a listener for each way in, their authorities, and their users. Each of the two brokers is a cluster.

use std::ffi::CString;
use std::ptr;
use std::sync::OnceLock;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka_sys as ffi;

use replicator::{Extras, Sandbox};

pub(crate) struct Broker {
    sandbox: Sandbox,
    /// Signed the broker's certificate.
    pub authority: Authority,
}

/// Without client certificates; with them; and by name and password, or token.
pub(crate) const TLS: &str = "TLS";
/// As [`TLS`], with a certificate of another host.
pub(crate) const ELSEWHERE: &str = "ELSEWHERE";
/// As [`TLS`], with a certificate that has expired.
pub(crate) const EXPIRED: &str = "EXPIRED";
pub(crate) const MUTUAL: &str = "MUTUAL";
pub(crate) const SASL: &str = "SASL";

pub(crate) const PLAIN_PASSWORD: &str = "plain-hunter2";

impl Broker {
    pub(crate) fn get() -> &'static Broker {
        static BROKER: OnceLock<Broker> = OnceLock::new();
        BROKER.get_or_init(|| Broker::start("the brokers' authority"))
    }

    /// Another cluster, with an authority of its own.
    pub(crate) fn second() -> &'static Broker {
        static BROKER: OnceLock<Broker> = OnceLock::new();
        BROKER.get_or_init(|| Broker::start("the second brokers' authority"))
    }

    fn start(authority: &str) -> Broker {
        let authority = Authority::new(authority);
        let (certificate, key) = authority.sign("broker", &["127.0.0.1", "localhost"]);
        let (elsewhere, elsewhere_key) = authority.sign("elsewhere", &["elsewhere.example"]);
        let (expired, expired_key) = authority.sign_expired("broker", &["127.0.0.1", "localhost"]);
        let mut properties = vec![
            // The plain listener is the test's own.
            ("super.users", "User:ANONYMOUS".to_owned()),
            ("allow.everyone.if.no.acl.found", "false".to_owned()),
            ("ssl.keystore.type", "PEM".to_owned()),
            ("ssl.keystore.certificate.chain", escaped(&certificate.pem())),
            ("ssl.keystore.key", escaped(&key.serialize_pem())),
            ("ssl.truststore.type", "PEM".to_owned()),
            ("ssl.truststore.certificates", escaped(&authority.pem())),
            ("listener.name.elsewhere.ssl.keystore.type", "PEM".to_owned()),
            ("listener.name.elsewhere.ssl.keystore.certificate.chain", escaped(&elsewhere.pem())),
            ("listener.name.elsewhere.ssl.keystore.key", escaped(&elsewhere_key.serialize_pem())),
            ("listener.name.expired.ssl.keystore.type", "PEM".to_owned()),
            ("listener.name.expired.ssl.keystore.certificate.chain", escaped(&expired.pem())),
            ("listener.name.expired.ssl.keystore.key", escaped(&expired_key.serialize_pem())),
            ("listener.name.mutual.ssl.client.auth", "required".to_owned()),
            ("listener.name.sasl.sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-512,OAUTHBEARER".to_owned()),
        ];
        let modules = "org.apache.kafka.common.security";
        properties.extend([
            (
                "listener.name.sasl.plain.sasl.jaas.config",
                format!("{modules}.plain.PlainLoginModule required user_paul=\"{PLAIN_PASSWORD}\";"),
            ),
            (
                "listener.name.sasl.scram-sha-512.sasl.jaas.config",
                format!("{modules}.scram.ScramLoginModule required;"),
            ),
            (
                "listener.name.sasl.oauthbearer.sasl.jaas.config",
                format!(
                    "{modules}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"broker\";"
                ),
            ),
        ]);
        let listeners =
            vec![(TLS, "SSL"), (ELSEWHERE, "SSL"), (EXPIRED, "SSL"), (MUTUAL, "SSL"), (SASL, "SASL_SSL")];
        let extras = Extras { listeners, properties, ..Extras::default() };
        Broker { sandbox: Sandbox::start_own_with(1, &extras).expect("a secured broker"), authority }
    }

    /// The listener that asks nothing.
    pub(crate) fn plain(&self) -> &str {
        self.sandbox.bootstrap()
    }

    pub(crate) fn door(&self, listener: &str) -> &str {
        self.sandbox.extra_door(listener).expect("a listener")
    }

    /// Makes a user for SCRAM-SHA-512.
    pub(crate) fn add_user(&self, name: &str, password: &str) {
        let client: BaseConsumer =
            rdkafka::ClientConfig::new().set("bootstrap.servers", self.plain()).create().expect("a client");
        let name = CString::new(name).expect("a name");
        unsafe {
            let native = client.client().native_ptr();
            let mut change = ffi::rd_kafka_UserScramCredentialUpsertion_new(
                name.as_ptr(),
                ffi::rd_kafka_ScramMechanism_t::RD_KAFKA_SCRAM_MECHANISM_SHA_512,
                4096,
                password.as_ptr(),
                password.len(),
                ptr::null(),
                0,
            );
            let queue = ffi::rd_kafka_queue_new(native);
            ffi::rd_kafka_AlterUserScramCredentials(native, &mut change, 1, ptr::null(), queue);
            let event = ffi::rd_kafka_queue_poll(queue, 30_000);
            assert!(!event.is_null(), "no answer");
            assert_eq!(
                ffi::rd_kafka_event_error(event),
                ffi::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
            );
            let result = ffi::rd_kafka_event_AlterUserScramCredentials_result(event);
            let mut count = 0;
            let responses = ffi::rd_kafka_AlterUserScramCredentials_result_responses(result, &mut count);
            assert_eq!(count, 1);
            let error = ffi::rd_kafka_AlterUserScramCredentials_result_response_error(*responses);
            assert_eq!(ffi::rd_kafka_error_code(error), ffi::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR);
            ffi::rd_kafka_event_destroy(event);
            ffi::rd_kafka_queue_destroy(queue);
            ffi::rd_kafka_UserScramCredentialAlteration_destroy(change);
        }
    }
}

/// One line of a properties file.
pub(super) fn escaped(pem: &str) -> String {
    pem.trim().replace('\r', "").replace('\n', "\\n")
}

/// Who signs certificates.
pub(crate) struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Authority {
        let mut params = named(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        Authority { certificate, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }

    pub(crate) fn sign(&self, name: &str, hosts: &[&str]) -> (Certificate, KeyPair) {
        self.signed(named(name, hosts))
    }

    pub(crate) fn sign_expired(&self, name: &str, hosts: &[&str]) -> (Certificate, KeyPair) {
        let mut params = named(name, hosts);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        self.signed(params)
    }

    fn signed(&self, mut params: CertificateParams) -> (Certificate, KeyPair) {
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        (params.signed_by(&key, &self.issuer).expect("a certificate"), key)
    }
}

/// A certificate of an authority that is its server's own, and its key, in PEM.
pub(crate) fn own(host: &str) -> (String, String) {
    let mut params = named(host, &[host]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    (params.self_signed(&key).expect("a certificate").pem(), key.serialize_pem())
}

fn named(name: &str, hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts).expect("names");
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
