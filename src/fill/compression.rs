//! Chooses how the producer compresses. librdkafka does not tell a batch's codec to its reader, and fixes a producer's
//! codec when it is made, so the run cannot keep each batch's own.

use crate::job::limits::Configuration;
use crate::kafka::properties::Properties;
use crate::kafka::sides::Sides;

/// The codec between two clusters if nothing else decides.
const DEFAULT: &str = "lz4";

/// The properties of the producer: with the codec that is given. If none is given and the job names two clusters, with
/// the codec that the source's topic prescribes, or else the default one. Within one cluster the network is near, so
/// nothing is compressed.
pub(super) fn chosen(properties: &Sides<Properties>, source: Option<Configuration<'_>>) -> Properties {
    let producing = properties.target.clone();
    if producing.codec().is_some() || !properties.are_two() {
        return producing;
    }
    match source.as_ref().map_or("", |source| source.text("compression.type")) {
        "uncompressed" => producing,
        codec @ ("gzip" | "snappy" | "lz4" | "zstd") => producing.compressing(codec),
        _ => producing.compressing(DEFAULT),
    }
}
