//! Chunks of a PNG file that its decoder does not report.

/// Ancillary chunks of a PNG.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct PngChunks {
    /// True if the file reaches its last chunk.
    pub complete: bool,
    /// True if the colours are declared as sRGB.
    pub srgb: bool,
    /// The encoding exponent of the samples, times 100,000.
    pub gamma: Option<u32>,
    /// White point, red, green and blue as x and y, times 100,000.
    pub chromaticities: Option<[u32; 8]>,
    /// Colour primaries, transfer function, matrix and range by the code points of ITU-T H.273.
    pub code_points: Option<[u8; 4]>,
}

impl PngChunks {
    /// Reads the chunks of a file.
    pub fn of(file: &[u8]) -> Self {
        const SIGNATURE: usize = 8;
        let mut chunks = Self::default();
        let mut rest = file.get(SIGNATURE..).unwrap_or_default();
        while let Some((head, after)) = rest.split_first_chunk::<8>() {
            let length = word(&head[..4]) as usize;
            // The checksum follows the data.
            let Some(end) = length.checked_add(4).filter(|&end| end <= after.len()) else { break };
            let data = &after[..length];
            match &head[4..] {
                b"IEND" => {
                    chunks.complete = true;
                    break;
                }
                b"sRGB" => chunks.srgb = true,
                b"gAMA" if length == 4 => chunks.gamma = Some(word(data)),
                b"cHRM" if length == 32 => {
                    chunks.chromaticities = Some(std::array::from_fn(|i| word(&data[4 * i..4 * i + 4])));
                }
                b"cICP" => chunks.code_points = data.try_into().ok(),
                _ => {}
            }
            rest = &after[end..];
        }
        chunks
    }

    /// Returns whether chunks other than a profile declare the colour encoding.
    pub fn declares_colors(&self) -> bool {
        self.gamma.is_some() || self.chromaticities.is_some() || self.code_points.is_some()
    }
}

/// A big-endian number of four bytes.
fn word(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |word, &byte| word << 8 | u32::from(byte))
}
