//! [`ModelConfig`]: a model of any of the built-in architectures.
//!
//! The key `architecture`, the first of a configuration, names the architecture. A configuration without this
//! key is a Glow: files that predate the other architectures lack it, and a Glow is still written without it.

use serde::de::{DeserializeSeed, IntoDeserializer, MapAccess};
use serde::{Serialize, Serializer};

/// The key that names the architecture.
pub(super) const TAG: &str = "architecture";
/// The architecture of a configuration without that key.
pub(super) const UNTAGGED: &str = "glow";

/// A configuration with its architecture's name.
#[derive(Serialize)]
struct Tagged<'a, C> {
    architecture: &'static str,
    #[serde(flatten)]
    config: &'a C,
}

/// Serialises a configuration, with the tag unless its architecture is the untagged one.
pub(super) fn serialize<C: Serialize, S: Serializer>(
    architecture: &'static str,
    config: &C,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    if architecture == UNTAGGED {
        return config.serialize(serializer);
    }
    Tagged { architecture, config }.serialize(serializer)
}

/// A map with one key already read.
///
/// The tag comes first, if present. All other keys are passed to the configuration from their positions in
/// the text, so that errors report the right position.
pub(super) struct Keys<M> {
    /// The key that was read, unless it was the tag.
    pub first: Option<String>,
    /// The remaining entries.
    pub map: M,
}

impl<'de, M: MapAccess<'de>> MapAccess<'de> for Keys<M> {
    type Error = M::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, M::Error> {
        match self.first.take() {
            Some(key) => seed.deserialize(key.into_deserializer()).map(Some),
            None => self.map.next_key_seed(seed),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, M::Error> {
        self.map.next_value_seed(seed)
    }
}

/// Defines [`ModelConfig`] for a list of architectures: variant, configuration and name of each.
macro_rules! architectures {
    ($($variant:ident($config:ident) = $name:literal,)*) => {
        /// Configuration of a model of any built-in architecture.
        #[derive(Clone, Debug, PartialEq)]
        pub enum ModelConfig {
            $(#[doc = concat!("The architecture `", $name, "`.")] $variant($config),)*
        }

        $(impl From<$config> for ModelConfig {
            fn from(config: $config) -> Self {
                Self::$variant(config)
            }
        })*

        impl Default for ModelConfig {
            /// The published Glow model of CIFAR-10.
            fn default() -> Self {
                Self::Glow(GlowConfig::default())
            }
        }

        impl ModelConfig {
            /// Names of the architectures.
            pub const ARCHITECTURES: &'static [&'static str] = &[$($name),*];

            /// Name of the architecture.
            pub fn architecture(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)*
                }
            }

            /// Height, width and channels of an image.
            pub fn image(&self) -> [usize; 3] {
                match self {
                    $(Self::$variant(config) => config.image(),)*
                }
            }

            /// Significant bits of a pixel, 1 to 8.
            pub fn bits(&self) -> u32 {
                match self {
                    $(Self::$variant(config) => config.bits(),)*
                }
            }

            /// Number of classes; 0 for a model without labels.
            pub fn classes(&self) -> usize {
                match self {
                    $(Self::$variant(config) => config.classes(),)*
                }
            }

            /// Height, width and channels of the latents of each level.
            pub fn latent_shapes(&self) -> Vec<[usize; 3]> {
                match self {
                    $(Self::$variant(config) => config.latent_shapes(),)*
                }
            }

            /// Sets the number of channels of an image.
            pub fn set_channels(&mut self, channels: usize) {
                match self {
                    $(Self::$variant(config) => config.set_channels(channels),)*
                }
            }

            /// Sets the number of classes.
            ///
            /// # Errors
            /// [`Error::Config`](crate::Error::Config) if the architecture has no class-conditional prior.
            pub fn set_classes(&mut self, classes: usize) -> Result<(), $crate::Error> {
                match self {
                    $(Self::$variant(config) => config.set_classes(classes),)*
                }
            }

            /// Checks that the model can be built.
            ///
            /// # Errors
            /// [`Error::Config`](crate::Error::Config) with the key, its value, and valid values.
            pub fn validate(&self) -> Result<(), $crate::Error> {
                match self {
                    $(Self::$variant(config) => config.validate(),)*
                }
            }

            /// Number of dimensions D of an image.
            pub fn dimensions(&self) -> usize {
                match self {
                    $(Self::$variant(config) => config.dimensions(),)*
                }
            }

            /// Number of values of a pixel, `2^bits`.
            pub fn bins(&self) -> u32 {
                match self {
                    $(Self::$variant(config) => config.bins(),)*
                }
            }

            /// `−log p / (D·log 2)`: converts a log-probability in nats to bits per dimension.
            pub fn bits_per_dim(&self, log_probability: f64) -> f64 {
                match self {
                    $(Self::$variant(config) => config.bits_per_dim(log_probability),)*
                }
            }

            /// A log-density `log p(v)` plus the log-volume of an image's bin: `log p(v) + log(bins^−D)`.
            pub fn in_bin(&self, log_density: f64) -> f64 {
                match self {
                    $(Self::$variant(config) => config.in_bin(log_density),)*
                }
            }
        }

        impl Architecture for ModelConfig {
            fn image(&self) -> [usize; 3] {
                self.image()
            }

            fn bits(&self) -> u32 {
                self.bits()
            }

            fn classes(&self) -> usize {
                self.classes()
            }

            fn dequantizer(&self) -> Option<$crate::flow::DequantizerConfig> {
                match self {
                    $(Self::$variant(config) => config.dequantizer(),)*
                }
            }

            fn build<D: glowflow_kernels::Operations>(&self, flow: &mut $crate::flow::FlowBuilder<'_, D>) {
                match self {
                    $(Self::$variant(config) => config.build(flow),)*
                }
            }

            fn set_channels(&mut self, channels: usize) {
                self.set_channels(channels);
            }

            fn train_defaults(&self) -> $crate::train::TrainConfig {
                match self {
                    $(Self::$variant(config) => config.train_defaults(),)*
                }
            }

            fn set_classes(&mut self, classes: usize) -> Result<(), $crate::Error> {
                self.set_classes(classes)
            }

            fn validate(&self) -> Result<(), $crate::Error> {
                self.validate()
            }

            fn unread(&self) -> Vec<String> {
                match self {
                    $(Self::$variant(config) => config.unread(),)*
                }
            }

            fn size_keys(&self) -> &'static [&'static str] {
                match self {
                    $(Self::$variant(config) => config.size_keys(),)*
                }
            }
        }

        impl serde::Serialize for ModelConfig {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self {
                    $(Self::$variant(config) => $crate::models::registry::serialize($name, config, serializer),)*
                }
            }
        }

        impl<'de> serde::Deserialize<'de> for ModelConfig {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;

                impl<'de> serde::de::Visitor<'de> for Visitor {
                    type Value = ModelConfig;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("a table of the model's configuration")
                    }

                    fn visit_map<M: serde::de::MapAccess<'de>>(self, mut map: M) -> Result<ModelConfig, M::Error> {
                        use serde::Deserialize;
                        use serde::de::{Error, value::MapAccessDeserializer};
                        use $crate::models::registry::{Keys, TAG, UNTAGGED};

                        let first: Option<String> = map.next_key()?;
                        let (tag, first) = match first {
                            Some(key) if key == TAG => (map.next_value::<String>()?, None),
                            other => (UNTAGGED.to_owned(), other),
                        };
                        let keys = MapAccessDeserializer::new(Keys { first, map });
                        match &*tag {
                            $($name => $config::deserialize(keys).map(ModelConfig::$variant),)*
                            _ => Err(M::Error::custom(format!(
                                "unknown {TAG} `{tag}`, expected one of {}",
                                ModelConfig::ARCHITECTURES.join(", ")
                            ))),
                        }
                    }
                }

                deserializer.deserialize_map(Visitor)
            }
        }
    };
}
pub(super) use architectures;
