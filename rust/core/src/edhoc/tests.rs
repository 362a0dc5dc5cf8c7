//! The published traces with the standard's own suites, both roles; then our own suites.

use aes::Aes128;
use aws_lc_rs::signature::{
    Ed25519KeyPair, UnparsedPublicKey, VerificationAlgorithm, ECDSA_P256_SHA256_FIXED, ED25519,
};
use ccm::aead::{Aead as _, KeyInit, Payload};
use ccm::consts::{U13, U8};
use hex::decode;

use super::*;
use crate::test_vectors;

/// AES-CCM-16-64-128, of suites 0 and 2.
struct Ccm;

impl Aead for Ccm {
    fn key_len(&self) -> usize {
        16
    }
    fn nonce_len(&self) -> usize {
        13
    }
    fn seal(&self, key: &[u8], nonce: &[u8], aad: &[u8], msg: &[u8]) -> Result<Vec<u8>> {
        let cipher = ccm::Ccm::<Aes128, U8, U13>::new_from_slice(key).unwrap();
        cipher
            .encrypt(nonce.try_into().unwrap(), Payload { msg, aad })
            .map_err(|_| Error::Authentication)
    }
    fn open(&self, key: &[u8], nonce: &[u8], aad: &[u8], msg: &[u8]) -> Result<Vec<u8>> {
        let cipher = ccm::Ccm::<Aes128, U8, U13>::new_from_slice(key).unwrap();
        cipher
            .decrypt(nonce.try_into().unwrap(), Payload { msg, aad })
            .map_err(|_| Error::Authentication)
    }
}

static SUITE_0: CipherSuite = CipherSuite { id: 0, hash: Sha2::Sha256, aead: &Ccm };
static SUITE_2: CipherSuite = CipherSuite { id: 2, hash: Sha2::Sha256, aead: &Ccm };

fn bytes(text: &str) -> Vec<u8> {
    decode(text.split_whitespace().collect::<String>()).unwrap()
}

/// One party of a trace.
struct Party {
    id: Vec<u8>,
    cred: Vec<u8>,
    public_key: Vec<u8>,
}

impl Party {
    fn credential(&self) -> Credential<'_> {
        Credential { id: &self.id, cred: &self.cred }
    }
}

/// Everything of a trace that goes in, and what must come out.
struct Trace {
    suite: &'static CipherSuite,
    edition: Edition,
    algorithm: &'static dyn VerificationAlgorithm,
    initiator: Party,
    responder: Party,
    g_x: Vec<u8>,
    g_y: Vec<u8>,
    g_xy: Vec<u8>,
    c_i: Vec<u8>,
    c_r: Vec<u8>,
    messages: [Vec<u8>; 4],
    prk_out: Vec<u8>,
    /// Label, context and what EDHOC_Exporter gives.
    exports: Vec<(u64, Vec<u8>)>,
}

impl Trace {
    /// Runs both roles. The signers make the trace's own signatures.
    fn run(
        &self,
        sign_r: &mut dyn FnMut(&[u8]) -> Result<Vec<u8>>,
        sign_i: &mut dyn FnMut(&[u8]) -> Result<Vec<u8>>,
    ) -> [Exporter; 2] {
        let verify = |key: &[u8], message: &[u8], signature: &[u8]| {
            UnparsedPublicKey::new(self.algorithm, key).verify(message, signature).is_ok()
        };
        let g_xy = || SharedSecret::copy_from(&self.g_xy).unwrap();
        let mut initiator = Initiator::new(self.suite, &self.g_x, &self.c_i);
        initiator.edition = self.edition;
        assert_eq!(initiator.message_1(), self.messages[0]);
        let read = Message1::read(&self.messages[0]).unwrap();
        assert_eq!((read.g_x, read.c_i), (&self.g_x[..], &self.c_i[..]));

        let unsigned = Unsigned::of_edition(
            self.edition,
            self.suite,
            &self.messages[0],
            (&self.g_y, &self.g_xy),
            &self.c_r,
        )
        .unwrap();
        let own = self.responder.credential();
        let signature = sign_r(&unsigned.to_be_signed(own).unwrap()).unwrap();
        let (message_2, responder) = unsigned.message_2(own, &signature).unwrap();
        assert_eq!(message_2, self.messages[1]);

        let claimed = initiator
            .read_message_2(&message_2, self.g_y.len(), |g_y| {
                assert_eq!(g_y, self.g_y);
                Ok(g_xy())
            })
            .unwrap();
        assert_eq!(claimed.id_cred(), self.responder.id);
        let mut verify_r = |m: &[u8], s: &[u8]| verify(&self.responder.public_key, m, s);
        let mut verify_i = |m: &[u8], s: &[u8]| verify(&self.initiator.public_key, m, s);
        assert!(claimed.verify_responder(&self.initiator.cred, &mut verify_r).is_err());
        assert!(claimed.verify_responder(&self.responder.cred, &mut verify_i).is_err());
        let verified = claimed.verify_responder(&self.responder.cred, &mut verify_r).unwrap();
        assert_eq!(verified.c_r(), self.c_r);

        let own = self.initiator.credential();
        let signature = sign_i(&verified.to_be_signed(own).unwrap()).unwrap();
        let (message_3, unconfirmed) = verified.message_3(own, &signature).unwrap();
        assert_eq!(message_3, self.messages[2]);
        let claimed = responder.read_message_3(&message_3).unwrap();
        assert_eq!(claimed.id_cred(), self.initiator.id);
        assert!(claimed.verify_initiator(&self.responder.cred, &mut verify_i).is_err());
        assert!(claimed.verify_initiator(&self.initiator.cred, &mut verify_r).is_err());
        let (message_4, theirs) =
            claimed.verify_initiator(&self.initiator.cred, &mut verify_i).unwrap();
        assert_eq!(message_4, self.messages[3]);
        let ours = unconfirmed.read_message_4(&message_4).unwrap();
        for exporter in [&ours, &theirs] {
            assert_eq!(exporter.prk_out[..], self.prk_out);
            for (label, expected) in &self.exports {
                let mut out = vec![0; expected.len()];
                exporter.export(*label, b"", &mut out).unwrap();
                assert_eq!(&out, expected);
            }
        }
        [ours, theirs]
    }
}

/// RFC 9529 section 2: method 0, suite 0, X.509 certificates by hash.
#[test]
fn rfc_9529_first_trace() {
    let certificate = |serial: &str, minute: &str, name: &str, key: &str, signature: &str| {
        bytes(&format!(
            "58f13081ee3081a1a0030201020204 62319e{serial} 300506032b6570 301d311b301906035504030c12
             4544484f4320526f6f742045643235353139 301e170d323230333136 3038{minute}5a170d
             3239313233313233303030305a 30223120301e06035504030c17 {name}
             302a300506032b6570032100 {key} 300506032b6570034100 {signature}"
        ))
    };
    let pk_r = "a1db47b95184854ad12a0c1a354e418aace33aa0f2c662c00b3ac55de92f9359";
    let pk_i = "ed06a8ae61a829ba5fa54525c9d07f48dd44a302f43e0f23d8cc20b73085141e";
    let responder = Party {
        id: bytes("a11822822e4879f2a41b510c1f9b"),
        cred: certificate(
            "c4",
            "32343336",
            "4544484f4320526573706f6e6465722045643235353139",
            pk_r,
            "b723bc01eab0928e8b2b6c98de19cc3823d46e7d6987b032478fecfaf14537a1
             af14cc8be829c6b73044101837eb4abc949565d86dce51cfae52ab82c152cb02",
        ),
        public_key: bytes(pk_r),
    };
    let initiator = Party {
        id: bytes("a11822822e48c24ab2fd7643c79f"),
        cred: certificate(
            "a0",
            "32343030",
            "4544484f4320496e69746961746f722045643235353139",
            pk_i,
            "521241d8b3a770996bcfc9b9ead4e7e0a1c0db353a3bdf2910b39275ae48b756
             015981850d27db6734e37f67212267dd05eeff27b9e7a813fa574b72a00b430b",
        ),
        public_key: bytes(pk_i),
    };
    let g_x = bytes("31f82c7b5b9cbbf0f194d913cc12ef1532d328ef32632a4881a1c0701e237f04");
    let g_y = bytes("dc88d2d51da5ed67fc4616356bc8ca74ef9ebe8b387e623a360ba480b9b29d1c");
    let g_xy = bytes("e5cdf3a986cdac5b7bf04691e2b07c08e71f53998d8f842b7c3fb4d839cf7b28");
    let x = bytes("892ec28e5cb6669108470539500b705e60d008d347c5817ee9f3327c8a87bb03");
    let mut shared = [0; 32];
    // SAFETY: three arrays of 32 bytes, as the function's signature asks.
    assert_eq!(1, unsafe { aws_lc_sys::X25519(shared.as_mut_ptr(), x.as_ptr(), g_y.as_ptr()) });
    assert_eq!(shared[..], g_xy);
    let trace = Trace {
        suite: &SUITE_0,
        edition: Edition::Rfc9528,
        algorithm: &ED25519,
        initiator,
        responder,
        g_x,
        g_y,
        g_xy,
        c_i: vec![0x2d],
        c_r: vec![0x18],
        messages: [
            bytes("0000582031f82c7b5b9cbbf0f194d913cc12ef1532d328ef32632a4881a1c0701e237f042d"),
            bytes(
                "5872dc88d2d51da5ed67fc4616356bc8ca74ef9ebe8b387e623a360ba480b9b29d1cbc26dd270fe9
                 c02c44ce3934794b1cc62ba22f05459f8d358c8d12275ac42c5f96ded5f13cc9084e5b201889a45e
                 5a60a5562dc118619c3daa2fd9f4c9f4d6edad109dd4edf95962aafbaf9ab3f4a1f6b98f",
            ),
            bytes(
                "585825c345884aaaeb22c527f9b1d2b6787207e0163c69b62a0d43928150427203c31674e4514ea6
                 e383b566eb29763efeb0afa518776ae1c65f856d84bf32af3a7836970466dcb71f76745d39d3025e
                 7703e0c032ebad51947c",
            ),
            bytes("484f0edee366e5c883"),
        ],
        prk_out: bytes("b744cb7d8a87cc0447c3350e165b250dab12ec453325abb922b30307e5c368f0"),
        exports: vec![
            (0, bytes("1e1c6beac3a8a1cac435de7e2f9ae7ff")),
            (1, bytes("ce7ab844c0106d73")),
        ],
    };
    let signer = |seed: &str, public: &str| {
        let pair = Ed25519KeyPair::from_seed_and_public_key(&bytes(seed), &bytes(public)).unwrap();
        move |message: &[u8]| Ok(pair.sign(message).as_ref().to_vec())
    };
    let mut sign_r =
        signer("ef140ff900b0ab03f0c08d879cbbd4b31ea71e6e7ee7ffcb7e7955777a332799", pk_r);
    let mut sign_i =
        signer("4c5b25878f507c6b9dae68fbd4fd3ff997533db0af00b25d324ea28e6c213bc8", pk_i);
    for mut exporter in trace.run(&mut sign_r, &mut sign_i) {
        exporter.key_update(&bytes("d6be169602b8bceaa01158fdb820890c")).unwrap();
        let mut out = [0; 16];
        exporter.export(0, b"", &mut out).unwrap();
        assert_eq!(out[..], bytes("ee0ff542c47eb0e09c69307649bdbbe5"));
        let mut out = [0; 8];
        exporter.export(1, b"", &mut out).unwrap();
        assert_eq!(out[..], bytes("80cede2a1e5aab48"));
    }
}

/// The working group's vectors 1 to 4: method 0, suite 2, several kinds of credentials,
/// at the time of draft 15.
#[test]
fn published_p256_traces() {
    let Some(vectors) = test_vectors::load("edhoc_p256.json") else { return };
    let mut run = 0;
    for vector in vectors.as_object().unwrap().values() {
        let text = |name: &str| vector[name].as_str().unwrap();
        let field = |name: &str| decode(text(name)).unwrap();
        if text("method") != "00" {
            continue;
        }
        let party = |who: &str| Party {
            id: field(&format!("id_cred_{who}")),
            cred: field(&format!("cred_{who}")),
            public_key: field(&format!("pk_{who}_raw")),
        };
        // The raw identifiers are integers in these vectors; their encoding is the byte.
        let trace = Trace {
            suite: &SUITE_2,
            edition: Edition::Draft15,
            algorithm: &ECDSA_P256_SHA256_FIXED,
            initiator: party("i"),
            responder: party("r"),
            g_x: field("g_x_raw"),
            g_y: field("g_y_raw"),
            g_xy: field("g_xy_raw"),
            c_i: field("c_i"),
            c_r: field("c_r"),
            messages: ["message_1", "message_2", "message_3", "message_4"].map(&field),
            prk_out: field("prk_out"),
            exports: vec![(0, field("oscore_secret_raw")), (1, field("oscore_salt_raw"))],
        };
        // ECDSA is randomised: the signers check what they are asked to sign and give the
        // signature of the trace.
        let mut sign_r = |message: &[u8]| {
            assert_eq!(message, field("m_2"));
            Ok(field("sig_or_mac_2_raw"))
        };
        let mut sign_i = |message: &[u8]| {
            assert_eq!(message, field("m_3"));
            Ok(field("sig_or_mac_3_raw"))
        };
        trace.run(&mut sign_r, &mut sign_i);
        run += 1;
    }
    assert_eq!(run, 4);
}
