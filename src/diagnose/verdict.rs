//! Checks in code what a model answered, whatever its server promised about schemas: only facts that were sent, only what was
//! offered, bounded text. Hands on a conclusion or the reason against it.

use super::{
    evidence::bounded,
    offers::{self, quoted},
    rules::Conclusion,
    schema::{MAX_CLAIMS, Reply},
};
use crate::{
    llm::Rejection,
    model::{Claim, Offer, Suggestion},
};

/// What an answer is checked against.
pub struct Sent {
    /// Ids of the facts that the prompt showed.
    pub evidence: Vec<String>,
    pub offers: Vec<Offer>,
}

const MAX_SUMMARY: usize = 600;
const MAX_CLAIM: usize = 400;

pub fn check(text: &str, sent: &Sent) -> Result<Conclusion, Rejection> {
    let reply: Reply =
        serde_json::from_str(text.trim()).map_err(|e| Rejection::Schema(bounded(&e.to_string(), 150)))?;
    let summary = bounded(&reply.summary, MAX_SUMMARY);
    if !is_prose(&summary) {
        return Err(Rejection::Schema(format!("the summary is no sentence: {}", quoted(&summary))));
    }
    if reply.claims.is_empty() || reply.claims.len() > MAX_CLAIMS {
        return Err(Rejection::Schema(format!("{} claims instead of 1 to {MAX_CLAIMS}", reply.claims.len())));
    }
    let claims = reply.claims.into_iter().map(|c| claim(c, sent)).collect::<Result<_, _>>()?;
    let suggestion = reply.playbook.map(|choice| {
        let unknown = || Rejection::PlaybookNotOffered(quoted(&choice.id));
        let offer = sent.offers.iter().find(|o| o.playbook == choice.id).ok_or_else(unknown)?;
        let params = offers::bind(offer, &choice.params).map_err(Rejection::ParamsNotOffered)?;
        Ok(Suggestion { playbook: offer.playbook.clone(), params, why: bounded(&choice.why, MAX_CLAIM) })
    });
    Ok(Conclusion { summary: summary.into(), claims, suggestion: suggestion.transpose()? })
}

fn claim(claim: Claim, sent: &Sent) -> Result<Claim, Rejection> {
    let text = bounded(&claim.text, MAX_CLAIM);
    if !is_prose(&text) || claim.evidence.is_empty() {
        return Err(Rejection::Schema(format!("a claim is no sentence or cites nothing: {}", quoted(&text))));
    }
    if let Some(invented) = claim.evidence.iter().find(|id| !sent.evidence.contains(id)) {
        return Err(Rejection::InventedEvidence(quoted(invented)));
    }
    let mut evidence = claim.evidence;
    let mut seen = std::collections::HashSet::new();
    evidence.retain(|id| seen.insert(id.clone()));
    Ok(Claim { text: text.into(), evidence })
}

/// Three words or more, letters for the most part. A model that has lost its way keeps to the grammar and writes noise; people
/// would read it in the place of what the rules found.
fn is_prose(text: &str) -> bool {
    let words = text.split_whitespace().filter(|w| w.chars().filter(|c| c.is_alphabetic()).count() >= 2);
    let visible = text.chars().filter(|c| !c.is_whitespace()).count();
    let letters = text.chars().filter(|c| c.is_alphabetic()).count();
    words.count() >= 3 && letters * 2 > visible
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::model::OfferedParam;

    fn sent() -> Sent {
        let param =
            OfferedParam { schema: json!({"type": "integer", "maximum": 3}), bound: None, default: None };
        let offer = Offer {
            playbook: "restart".into(),
            title: "Restart shop".into(),
            description: String::new(),
            params: [("count".to_owned(), param)].into(),
            target: "shop".into(),
            read_only: false,
        };
        Sent { evidence: vec!["E1".into(), "E2".into()], offers: vec![offer] }
    }
    fn answer(evidence: &[&str], playbook: Value) -> String {
        json!({"summary": "A deploy broke it.", "claims": [{"text": "It came first.", "evidence": evidence}], "playbook": playbook}).to_string()
    }
    fn rejected(text: &str) -> Rejection {
        check(text, &sent()).expect_err("rejected")
    }

    #[test]
    fn a_good_answer_becomes_a_conclusion() {
        let text =
            answer(&["E2", "E2"], json!({"id": "restart", "params": {"count": 2}, "why": "It restarts."}));
        let c = check(&text, &sent()).expect("good");
        assert_eq!(
            (c.summary.as_str(), c.claims[0].evidence.as_slice()),
            ("A deploy broke it.", ["E2".to_owned()].as_slice())
        );
        assert_eq!(c.suggestion.expect("chosen").params["count"], json!(2));
    }

    #[test]
    fn what_was_not_sent_or_offered_is_refused_by_name() {
        assert_eq!(
            rejected(&answer(&["E99"], Value::Null)).to_string(),
            "the answer cites \"E99\", which was not sent"
        );
        let wipe = json!({"id": "wipe", "params": {}, "why": ""});
        assert_eq!(rejected(&answer(&["E1"], wipe)), Rejection::PlaybookNotOffered("\"wipe\"".into()));
        let many = json!({"id": "restart", "params": {"count": 9}, "why": ""});
        assert!(matches!(rejected(&answer(&["E1"], many)), Rejection::ParamsNotOffered(_)));
        let extra = json!({"id": "restart", "params": {"count": 1, "host": "x"}, "why": ""});
        assert!(matches!(rejected(&answer(&["E1"], extra)), Rejection::ParamsNotOffered(_)));
    }

    #[test]
    fn other_forms_are_refused() {
        let noise = r#"{"summary":"(й]Ё :: 7&","claims":[],"playbook":null}"#;
        let no_claims = r#"{"summary":"It is the disk.","claims":[],"playbook":null}"#;
        let uncited = answer(&[], Value::Null);
        for text in [
            "",
            "Sure! Here is",
            "{",
            "[]",
            r#"{"summary":"s"}"#,
            noise,
            no_claims,
            &uncited,
            "```json\n{}\n```",
        ] {
            assert!(matches!(rejected(text), Rejection::Schema(_)), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_cite_the_unknown(text in "\\PC{0,80}", ids in proptest::collection::vec("E[0-9]{1,2}", 0..4)) {
            let _ = check(&text, &sent());
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            if let Ok(c) = check(&answer(&ids, Value::Null), &sent()) {
                prop_assert!(c.claims.iter().flat_map(|c| &c.evidence).all(|id| sent().evidence.contains(id)));
            }
        }
    }
}
