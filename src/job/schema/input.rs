//! Reads what Avro and Protobuf both have: integers of as few bytes as they need. Pure.

/// Bytes that are yet to be read.
pub(super) struct Input<'d>(&'d [u8]);

impl<'d> Input<'d> {
    pub(super) fn of(bytes: &'d [u8]) -> Input<'d> {
        Input(bytes)
    }

    pub(super) fn rest(&self) -> &'d [u8] {
        self.0
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'d [u8], String> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or("the bytes end too early")?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (taken, rest) = self.0.split_first_chunk().ok_or("the bytes end too early")?;
        self.0 = rest;
        Ok(*taken)
    }

    /// An integer: seven bits in each byte, lowest first, and the sign in the lowest bit.
    pub(super) fn integer(&mut self) -> Result<i64, String> {
        let mut bits = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            let seven = u64::from(byte & 0x7f);
            if shift == 63 && seven > 1 {
                break;
            }
            bits |= seven << shift;
            if byte & 0x80 == 0 {
                #[expect(clippy::cast_possible_wrap, reason = "the definition of this encoding")]
                return Ok((bits >> 1) as i64 ^ -((bits & 1) as i64));
            }
        }
        Err("an integer has more than 64 bits".to_owned())
    }

    /// An integer that counts or chooses.
    pub(super) fn index(&mut self) -> Result<usize, String> {
        let integer = self.integer()?;
        usize::try_from(integer).map_err(|_| format!("{integer} is no length, count or index"))
    }

    pub(super) fn bytes(&mut self) -> Result<&'d [u8], String> {
        let length = self.index()?;
        self.take(length)
    }
}
