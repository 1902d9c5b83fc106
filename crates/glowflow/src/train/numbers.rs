//! Conversion of numbers to and from the bytes of messages between ranks.

/// Converts numbers to bytes.
pub(super) fn to_bytes(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// Converts bytes to numbers. Trailing bytes of an incomplete number are dropped.
pub(super) fn from_bytes(bytes: &[u8]) -> Vec<f32> {
    let number = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    bytes.chunks_exact(4).map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_bits() {
        let numbers = [0.0, -0.0, 1.5e-40, f32::INFINITY, f32::from_bits(0x7fc0_1234)];
        let bits = |numbers: &[f32]| numbers.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&from_bytes(&to_bytes(&numbers))), bits(&numbers));
        assert_eq!(from_bytes(&[0; 6]), [0.0]);
    }
}
