//! `vectors/session.json`: handshakes from fixed ephemeral seeds, and packets from fixed
//! traffic secrets. `cargo test --test session_vectors -- --ignored` writes it anew, which
//! is done only when a form changes: encapsulation and signing are random.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::PathBuf;

use pqc_iiot_core::edhoc::{own_suite, Credential, Exporter, Initiator, Unsigned};
use pqc_iiot_core::kem::{PrivateKey, PublicKey};
use pqc_iiot_core::memory::SecretBytes;
use pqc_iiot_core::secret::Secret;
use pqc_iiot_core::session::{Receiver, Role, Sender, Session, OVERHEAD, SECRET_LEN};
use pqc_iiot_core::sig::{Sig, SigningKey, VerifyingKey};
use pqc_iiot_core::Error;
use serde_json::{json, Value};

const SUITES: [(i64, Sig); 5] = [
    (-24, Sig::Falcon512),
    (-25, Sig::Falcon1024),
    (-26, Sig::Falcon512),
    (-27, Sig::Falcon512),
    (-28, Sig::MlDsa87),
];
const C_I: [u8; 4] = [0, 1, 2, 3];
const C_R: [u8; 4] = [0xf0, 0xf1, 0xf2, 0xf3];
/// EDHOC_Exporter's label of the traffic secrets.
const TRAFFIC: u64 = 32768;
/// Numbers between two steps of the ratchet.
const STEP: u32 = 1 << 14;

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../vectors/session.json")
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

/// A topic as an encoded byte string, as it is bound to a packet; nothing for control.
fn bound(topic: &Value) -> Vec<u8> {
    let Some(topic) = topic.as_str() else { return Vec::new() };
    assert!(topic.len() < 24);
    [&[0x40 | topic.len() as u8], topic.as_bytes()].concat()
}

fn ephemeral(suite: i64) -> PrivateKey {
    let (_, kem) = own_suite(suite).unwrap();
    let seed: Vec<u8> = (0..kem.seed_len()).map(|i| (suite as u8) ^ i as u8).collect();
    PrivateKey::from_seed(*kem, SecretBytes::copy_from(&seed).unwrap()).unwrap()
}

/// ID_CRED_x = {4: 2 bytes of the key id}, CRED_x = {2: name, -65537: 1, -65540: fingerprint}.
fn party(name: &str, mark: u8) -> (Vec<u8>, Vec<u8>) {
    let id = vec![0xa1, 4, 0x42, mark, mark];
    let name = [&[0xa3, 2, 0x60 | name.len() as u8], name.as_bytes()].concat();
    let rest = [&[0x3a, 0, 1, 0, 0, 1, 0x3a, 0, 1, 0, 3, 0x58, 32][..], &[mark; 32]].concat();
    (id, [name, rest].concat())
}

fn of<'a>((id, cred): &'a (Vec<u8>, Vec<u8>)) -> Credential<'a> {
    Credential { id, cred }
}

fn traffic(exporter: &Exporter) -> Vec<u8> {
    let mut secrets = vec![0; 2 * SECRET_LEN];
    exporter.export(TRAFFIC, b"", &mut secrets).unwrap();
    secrets
}

/// Frames as docs/sessions.md has them.
fn framed(kind: u8, who: &[u8], message: &[u8]) -> String {
    hex::encode([&[kind][..], who, message].concat())
}

fn handshake(suite: i64, sig: Sig) -> Value {
    let (cipher, kem) = own_suite(suite).unwrap();
    let (i, r) = (party("initiator", 0x11), party("responder", 0x22));
    let keys = [SigningKey::generate(sig).unwrap(), SigningKey::generate(sig).unwrap()];
    let key = ephemeral(suite);
    let initiator = Initiator::new(cipher, key.public_key(), &C_I);
    let (g_y, g_xy) = PublicKey::new(*kem, key.public_key()).unwrap().encapsulate().unwrap();
    let unsigned = Unsigned::new(cipher, initiator.message_1(), &g_y, &g_xy, &C_R).unwrap();
    let signature_2 = keys[1].sign(&unsigned.to_be_signed(of(&r)).unwrap()).unwrap();
    let (message_2, responder) = unsigned.message_2(of(&r), &signature_2).unwrap();
    let claimed = initiator.read_message_2(&message_2, g_y.len(), |g_y| key.decapsulate(g_y));
    let verified = claimed.unwrap().verify_responder(&r.1, &mut |_, _| true).unwrap();
    let signature = keys[0].sign(&verified.to_be_signed(of(&i)).unwrap()).unwrap();
    let (message_3, _) = verified.message_3(of(&i), &signature).unwrap();
    let claimed = responder.read_message_3(&message_3).unwrap();
    let (message_4, mut exporter) = claimed.verify_initiator(&i.1, &mut |_, _| true).unwrap();
    let secrets = traffic(&exporter);
    exporter.key_update(b"").unwrap();
    let mut exported = [0; 32];
    exporter.export(0, b"context", &mut exported).unwrap();
    let seed: Vec<u8> = (0..kem.seed_len()).map(|i| (suite as u8) ^ i as u8).collect();
    let one = |party: &(Vec<u8>, Vec<u8>), key: &SigningKey, signature: &[u8]| {
        json!({
            "id_cred": hex::encode(&party.0),
            "cred": hex::encode(&party.1),
            "public_key": hex::encode(key.public_key()),
            "signature": hex::encode(signature),
        })
    };
    json!({
        "suite": -23 - suite,
        "edhoc_suite": suite,
        "sig_id": sig.id(),
        "initiator": one(&i, &keys[0], &signature),
        "responder": one(&r, &keys[1], &signature_2),
        "ephemeral_seed": hex::encode(seed),
        "c_i": hex::encode(C_I),
        "c_r": hex::encode(C_R),
        "frames": [
            framed(2, &[0x11; 8], initiator.message_1()),
            framed(3, &C_I, &message_2),
            framed(4, &C_R, &message_3),
            framed(5, &C_I, &message_4),
        ],
        "initiator_secret": hex::encode(&secrets[..SECRET_LEN]),
        "responder_secret": hex::encode(&secrets[SECRET_LEN..]),
        "exports": [{
            "label": 0, "context": hex::encode(b"context"), "secret": hex::encode(exported),
        }],
    })
}

fn packet(sender: &mut Sender, topic: &Value, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0; OVERHEAD + payload.len()];
    sender.seal(&bound(topic), payload, &mut out).unwrap();
    out
}

fn sender(secret: &[u8]) -> Sender {
    Sender::new(C_R, secret).unwrap()
}

/// Packets by number and topic, across steps of the ratchet.
fn packets(secret: &[u8]) -> Value {
    let mut sender = sender(secret);
    let wanted = [
        (0, json!("line1/setpoint"), "21.5"),
        (1, json!(""), ""),
        (2, Value::Null, "\u{2}"),
        (STEP - 1, json!("t"), "the last under the first key"),
        (STEP, json!("t"), "the first under the second key"),
        (3 * STEP + 7, json!("t"), "two steps on"),
    ];
    let made = wanted.into_iter().map(|(number, topic, payload)| {
        while sender.sealed() < number {
            packet(&mut sender, &Value::Null, b"");
        }
        let packet = packet(&mut sender, &topic, payload.as_bytes());
        json!({
            "number": number,
            "topic": topic,
            "payload": hex::encode(payload),
            "packet": hex::encode(packet),
        })
    });
    json!({ "id": hex::encode(C_R), "secret": hex::encode(secret), "packets": Vec::from_iter(made) })
}

/// What a receiver says of packets in this order, of which some are bent.
fn arrivals(secret: &[u8], window: u32, order: &[(u32, bool)]) -> Value {
    let mut receiver = Receiver::new(C_R, secret, window).unwrap();
    let last = order.iter().map(|(number, _)| *number).max().unwrap();
    let mut sender = sender(secret);
    let topic = json!("t");
    let all: Vec<_> = (0..=last).map(|_| packet(&mut sender, &topic, b"x")).collect();
    let steps = order.iter().map(|&(number, genuine)| {
        let mut packet = all[number as usize].clone();
        if !genuine {
            packet[OVERHEAD] ^= 1;
        }
        let result = outcome(&mut receiver, &topic, &packet);
        json!({ "packet": hex::encode(packet), "result": result })
    });
    json!({ "window": window, "steps": Vec::from_iter(steps) })
}

fn outcome(receiver: &mut Receiver, topic: &Value, packet: &[u8]) -> String {
    let mut payload = vec![0; packet.len() - OVERHEAD];
    match receiver.open(&bound(topic), packet, &mut payload) {
        Ok(()) => "opened".into(),
        Err(Error::Replay) => "replay".into(),
        Err(Error::Authentication) => "authentication_failed".into(),
        Err(Error::Frame(_)) => "invalid_frame".into(),
        Err(other) => panic!("{other}"),
    }
}

#[test]
#[ignore = "writes the file"]
fn generate() {
    let secret: Vec<u8> = (0..SECRET_LEN as u8).collect();
    let orders: [(u32, Vec<(u32, bool)>); 4] = [
        (0, vec![(0, true), (0, true), (2, true), (1, true), (3, false), (3, true)]),
        (4, vec![(3, true), (0, true), (0, true), (5, true), (1, true), (0, true), (4, true)]),
        // A bent packet of the next step moves nothing; the step before is still opened.
        (64, vec![(1, true), (STEP + 1, false), (0, true), (STEP + 1, true), (STEP - 1, true)]),
        // Two steps at once: the one between them is gone. Three are too many.
        (64, vec![(3 * STEP, true), (2 * STEP, true), (2 * STEP - 1, true), (3 * STEP, true)]),
    ];
    let arrivals: Vec<_> = orders.iter().map(|(w, order)| arrivals(&secret, *w, order)).collect();
    let vectors = json!({
        "description": "Handshakes and packets of docs/sessions.md. Whoever has the ephemeral \
            key of `ephemeral_seed` reads the frames as the initiator and gets the secrets. \
            `arrivals` are packets at a new receiver with the same id and secret, under the \
            topic `t`, in this order.",
        "handshakes": SUITES.map(|(suite, sig)| handshake(suite, sig)),
        "packets": packets(&secret),
        "arrivals": arrivals,
    });
    let text = serde_json::to_string_pretty(&vectors).unwrap();
    std::fs::write(file(), text + "\n").unwrap();
}

fn vectors() -> Value {
    serde_json::from_slice(&std::fs::read(file()).unwrap()).unwrap()
}

#[test]
fn an_initiator_reads_the_recorded_handshakes_and_says_the_same_again() {
    let vectors = vectors();
    for vector in vectors["handshakes"].as_array().unwrap() {
        let suite = vector["edhoc_suite"].as_i64().unwrap();
        let (cipher, kem) = own_suite(suite).unwrap();
        let party = |who: &str| (bytes(&vector[who]["id_cred"]), bytes(&vector[who]["cred"]));
        let verifying = |who: &str| {
            let sig = Sig::from_id(vector["sig_id"].as_i64().unwrap()).unwrap();
            VerifyingKey::new(sig, &bytes(&vector[who]["public_key"])).unwrap()
        };
        let (i, r, frames) = (party("initiator"), party("responder"), &vector["frames"]);
        let message = |at: usize| bytes(&frames[at])[if at == 0 { 9 } else { 5 }..].to_vec();
        let key = ephemeral(suite);
        let initiator = Initiator::new(cipher, key.public_key(), &bytes(&vector["c_i"]));
        assert_eq!(initiator.message_1(), message(0));
        let len = kem.ciphertext_len();
        let claimed = initiator.read_message_2(&message(1), len, |g_y| key.decapsulate(g_y));
        let (claimed, signer) = (claimed.unwrap(), verifying("responder"));
        assert_eq!(claimed.id_cred(), r.0);
        let verified = claimed.verify_responder(&r.1, &mut |m, s| signer.verify(m, s)).unwrap();
        assert_eq!(verified.c_r(), bytes(&vector["c_r"]));
        let (signer, signed) = (verifying("initiator"), verified.to_be_signed(of(&i)).unwrap());
        let recorded = bytes(&vector["initiator"]["signature"]);
        assert!(signer.verify(&signed, &recorded));
        let (message_3, unconfirmed) = verified.message_3(of(&i), &recorded).unwrap();
        assert_eq!(message_3, message(2));
        let exporter = unconfirmed.read_message_4(&message(3)).unwrap();
        let secrets = [bytes(&vector["initiator_secret"]), bytes(&vector["responder_secret"])];
        assert_eq!(traffic(&exporter), secrets.concat());
        // A session's packets come from the first secret, its exports from an updated key.
        let mut session = Session::new(exporter, Role::Initiator, C_I, C_R, 0).unwrap();
        let mut made = vec![0; OVERHEAD + 1];
        session.sender.seal(b"", b"x", &mut made).unwrap();
        assert_eq!(made, packet(&mut sender(&secrets[0]), &Value::Null, b"x"));
        let exported =
            Secret::from(SecretBytes::copy_from(&bytes(&vector["exports"][0]["secret"])).unwrap());
        let again = session.export(0, b"context", 32).unwrap();
        assert_eq!(again.mac(b""), exported.mac(b""));
    }
}

#[test]
fn packets_are_made_and_taken_as_recorded() {
    let vectors = vectors();
    let secret = bytes(&vectors["packets"]["secret"]);
    assert_eq!(packets(&secret), vectors["packets"]);
    let mut results = Vec::new();
    for case in vectors["arrivals"].as_array().unwrap() {
        let window = case["window"].as_u64().unwrap() as u32;
        let mut receiver = Receiver::new(C_R, &secret, window).unwrap();
        for step in case["steps"].as_array().unwrap() {
            let result = outcome(&mut receiver, &json!("t"), &bytes(&step["packet"]));
            assert_eq!(result, step["result"], "window {window}");
            results.push(result);
        }
    }
    for each in ["opened", "replay", "authentication_failed", "invalid_frame"] {
        assert!(results.iter().any(|result| result == each), "{each}");
    }
}
