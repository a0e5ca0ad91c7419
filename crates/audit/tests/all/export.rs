use audit::{Bundle, MalformedBundle, Verifier, encode_bundle};

use crate::fixture::{blank, bodies, key, seal, sign};

#[test]
fn paths_are_those_of_the_specification() {
    #[track_caller]
    fn check(index: u64, width: u64, path: &str) {
        assert_eq!(Bundle { index, width }.path(), path);
    }
    check(0, 256, "tile/entries/000");
    check(67, 256, "tile/entries/067");
    check(999, 256, "tile/entries/999");
    check(1000, 256, "tile/entries/x001/000");
    check(1_234_067, 256, "tile/entries/x001/x234/067");
    check(1_234_067, 8, "tile/entries/x001/x234/067.p/8");
    check(273, 112, "tile/entries/273.p/112");
}

#[test]
fn bundles_cover_a_log_without_gap_or_overlap() {
    for size in [0, 1, 255, 256, 257, 511, 512, 70_000] {
        let mut next = 0;
        for bundle in Bundle::covering(size) {
            assert_eq!(bundle.first_entry(), next);
            assert!((1..=256).contains(&bundle.width));
            next += bundle.width;
        }
        assert_eq!(next, size);
    }
    let last = Bundle::covering(70_000).last().unwrap();
    assert_eq!(last, Bundle { index: 273, width: 112 });
}

#[test]
fn a_bundle_reads_back_as_written_and_nothing_else_does() {
    let bundle = Bundle { index: 0, width: 3 };
    let bytes = encode_bundle([&b"one"[..], b"", b"three"]).unwrap();
    assert_eq!(bytes, b"\0\x03one\0\0\0\x05three");
    assert_eq!(bundle.decode(&bytes).unwrap(), [&b"one"[..], b"", b"three"]);

    for length in 0..bytes.len() {
        assert_eq!(bundle.decode(&bytes[..length]), Err(MalformedBundle), "cut at {length}");
    }
    assert!(bundle.decode(&[&bytes[..], &[0]].concat()).is_err());
    assert!(bundle.decode(&[&bytes[..], &[0, 0]].concat()).is_err());
    assert!(Bundle { index: 0, width: 2 }.decode(&bytes).is_err());
    assert_eq!(encode_bundle([vec![0; 65_536]]), Err(MalformedBundle));
    assert!(encode_bundle([vec![0; 65_535]]).is_ok());
}

#[test]
fn an_export_of_several_bundles_verifies() {
    let records = (0..600).map(|_| blank(audit::Kind::BrokerStarted)).collect();
    let bodies = bodies(&seal(records));
    let files: Vec<Vec<u8>> = bodies.chunks(256).map(|part| encode_bundle(part).unwrap()).collect();

    let mut verifier = Verifier::open(key().verifier(), &sign(&bodies)).unwrap();
    for (bundle, file) in verifier.bundles().zip(&files) {
        for body in bundle.decode(file).unwrap() {
            verifier.push(body).unwrap();
        }
    }
    assert_eq!(verifier.finish().unwrap().size, 600);
}
