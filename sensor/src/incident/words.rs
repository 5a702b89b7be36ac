//! Small words that outputs share: durations, file names, ids.

use crate::finding::Evidence;

/// `300 ms`, `0.1 ms`, `2.5 s`.
pub(super) fn duration(seconds: f64) -> String {
    let milliseconds = seconds * 1000.0;
    if seconds >= 1.0 {
        format!("{seconds:.1} s")
    } else if milliseconds >= 10.0 {
        format!("{milliseconds:.0} ms")
    } else if milliseconds >= 0.1 {
        format!("{milliseconds:.1} ms")
    } else {
        "under 0.1 ms".to_owned()
    }
}

/// Last component of a path.
pub(super) fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// `RSA_public_decrypt` of `RSA_public_decrypt@OPENSSL_3.0.0`.
pub(super) fn function(symbol: &str) -> &str {
    symbol.split('@').next().unwrap_or(symbol)
}

/// `liblzma.so.5.4.1 (build-id 0123456789ab)`
pub(super) fn library(path: &str, build_id: Option<&str>) -> String {
    match build_id {
        Some(id) => format!("{} (build-id {})", file_name(path), id.get(..12).unwrap_or(id)),
        None => format!("{} (no build-id)", file_name(path)),
    }
}

/// The file a piece of evidence accuses.
pub(super) fn accused(evidence: &Evidence) -> Option<(&str, Option<&str>)> {
    match evidence {
        Evidence::Slot { actual_module, actual_build_id, .. } => {
            Some((actual_module, actual_build_id.as_deref()))
        }
        Evidence::Library { path, build_id, .. } => Some((path, build_id.as_deref())),
        Evidence::Caller { caller_module, .. } => Some((caller_module, None)),
        Evidence::Timing { module: Some(module), .. } => Some((module, None)),
        _ => None,
    }
}

/// 16 hex digits of content (FNV-1a, 64 bits): the same input gives the same id on every machine.
pub(crate) fn content_id(parts: &[&str]) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for byte in part.bytes().chain([0xff]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        let said: Vec<String> =
            [0.300, 0.000_1, 2.54, 0.003_48, 0.000_02].into_iter().map(duration).collect();
        assert_eq!(said, ["300 ms", "0.1 ms", "2.5 s", "3.5 ms", "under 0.1 ms"]);
    }

    #[test]
    fn ids_depend_on_every_part_and_its_place() {
        let ids = [content_id(&["a", "bc"]), content_id(&["ab", "c"]), content_id(&["bc", "a"])];
        assert!(ids[0] != ids[1] && ids[0] != ids[2] && ids[1] != ids[2]);
        // The reference value of FNV-1a for the empty input.
        assert_eq!(content_id(&[]), "cbf29ce484222325");
    }
}
