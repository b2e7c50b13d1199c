//! Jobs are carried out once, again after a failure, and by another after a kill.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use aiops::{
    clock,
    model::{JobKind, NewJob},
    store::{Store, flags, jobs},
    worker::Worker,
};
use tokio_util::sync::CancellationToken;

use crate::stores::on_both_stores;

async fn enqueue(store: &Store, kind: JobKind, subject: &str) {
    let mut tx = store.write().await.expect("begins");
    let job = NewJob { kind, subject: subject.into(), run_at: clock::now() };
    jobs::enqueue(&mut tx, &job).await.expect("enqueued");
    tx.commit().await.expect("commits");
}

async fn flag(store: &Store, key: &str) -> Option<serde_json::Value> {
    let mut tx = store.read().await.expect("begins");
    flags::get(&mut tx, key).await.expect("reads")
}

async fn until<F: AsyncFn() -> bool>(what: &str, holds: F) {
    for _ in 0..500 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not within 10 s: {what}");
}

on_both_stores! {
    async fn a_result_and_the_next_job_are_written_together(store: Store) {
        let cancel = CancellationToken::new();
        let worker = Worker::new(store.clone(), "one".into(), 4);
        let (stop, inner) = (cancel.clone(), store.clone());
        let task = tokio::spawn(async move {
            worker.run(stop, move |job, _| {
                let store = inner.clone();
                async move {
                    let mut tx = store.write().await?;
                    flags::set(&mut tx, job.kind.as_str(), &job.subject.clone().into()).await?;
                    let next = match job.kind {
                        JobKind::Diagnose => {
                            vec![NewJob { kind: JobKind::Decide, subject: job.subject.clone(), run_at: clock::now() }]
                        }
                        _ => Vec::new(),
                    };
                    Ok((tx, next))
                }
            }).await;
        });
        enqueue(&store, JobKind::Diagnose, "i1").await;
        until("the next job is done too", async || flag(&store, "decide").await == Some("i1".into())).await;
        cancel.cancel();
        task.await.expect("stops");
        let mut tx = store.read().await.expect("begins");
        assert_eq!(jobs::backlog(&mut tx, clock::now()).await.expect("reads").0, 0);
    }

    async fn a_failure_is_tried_again_and_the_rest_goes_on(store: Store) {
        let (cancel, tries) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
        let worker = Worker::new(store.clone(), "one".into(), 4);
        let (stop, inner, count) = (cancel.clone(), store.clone(), tries.clone());
        let task = tokio::spawn(async move {
            worker.run(stop, move |job, _| {
                let (store, count) = (inner.clone(), count.clone());
                async move {
                    if job.subject == "bad" && count.fetch_add(1, Ordering::SeqCst) == 0 {
                        anyhow::bail!("no answer");
                    }
                    let mut tx = store.write().await?;
                    flags::set(&mut tx, &job.subject, &job.attempt.into()).await?;
                    Ok((tx, Vec::new()))
                }
            }).await;
        });
        enqueue(&store, JobKind::Diagnose, "bad").await;
        enqueue(&store, JobKind::Diagnose, "good").await;
        until("both are done", async || {
            flag(&store, "good").await.is_some() && flag(&store, "bad").await == Some(2.into())
        }).await;
        cancel.cancel();
        task.await.expect("stops");
    }
}
