//! CRC-32C (Castagnoli), as PP2_TYPE_CRC32C has it: once per connection over some hundred bytes, so
//! a table is fast enough and a crate more than it needs.

const POLYNOMIAL: u32 = 0x82F6_3B78;

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

pub(super) fn crc32c(bytes: impl IntoIterator<Item = u8>) -> u32 {
    let step = |crc: u32, byte: u8| (crc >> 8) ^ TABLE[usize::from(crc as u8 ^ byte)];
    !bytes.into_iter().fold(!0, step)
}

#[cfg(test)]
mod tests {
    use super::crc32c;

    // RFC 3720, appendix B.4, and the check value of the CRC catalogue.
    #[test]
    fn the_sums_are_those_of_the_rfc() {
        assert_eq!(crc32c(*b"123456789"), 0xE306_9283);
        assert_eq!(crc32c([0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c([0xFF; 32]), 0x62A8_AB43);
        assert_eq!(crc32c(0..32), 0x46DD_794E);
    }
}
