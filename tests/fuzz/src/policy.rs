//! Policies of askers, and a checkpoint with three cosignatures judged by them.

use std::sync::LazyLock;

use syndicate::proof::checkpoint::SignedCheckpoint;
use syndicate::proof::policy::{MAX_MEMBERS, MAX_POLICY, Policy, Quorum, Standing};

use super::mini_log::{self, WORLD, at, world};

static SIGNED: LazyLock<SignedCheckpoint> = LazyLock::new(|| {
    let keys = mini_log::cosigners();
    let times: Vec<_> = keys.iter().map(|key| (key, at(WORLD))).collect();
    SignedCheckpoint::parse(&world().checkpoint(&times)).expect("our own checkpoint")
});

pub fn policy(bytes: &[u8]) {
    let Ok(policy) = Policy::parse(bytes) else { return };
    assert_eq!(Policy::parse(bytes).as_ref(), Ok(&policy));
    assert!(bytes.len() <= MAX_POLICY);
    assert!(policy.logs().len() <= MAX_MEMBERS && policy.witnesses().len() <= MAX_MEMBERS);
    let Ok(verdict) = policy.evaluate(&SIGNED, at(WORLD + 1000)) else { return };
    // Only the log that signed, and only those who cosigned.
    assert_eq!(verdict.log.key.public_key(), mini_log::log_vkey().public_key());
    let cosigners: Vec<_> = mini_log::cosigners().iter().map(|key| key.verifier()).collect();
    for cosigner in &verdict.cosigners {
        assert!(cosigners.contains(&cosigner.witness.key));
        let own = policy.runs(verdict.log, cosigner.witness);
        assert!(!own || cosigner.standing != Standing::Counted);
    }
    if verdict.quorum == Quorum::Met {
        let counted = |standing| standing == Standing::Counted;
        assert!(verdict.cosigners.iter().any(|cosigner| counted(cosigner.standing)));
    }
}
