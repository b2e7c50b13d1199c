//! Both engines, for every test that touches the store.

use aiops::store::Store;

use crate::peers;

/// A store with the directory that it lives in, if it is embedded.
pub struct Kept {
    pub store: Store,
    _dir: tempfile::TempDir,
}

pub async fn sqlite() -> Kept {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open("", dir.path()).await.expect("SQLite opens");
    Kept { store, _dir: dir }
}

pub async fn postgres() -> Kept {
    let url = peers::Postgres::database().await;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(&url, dir.path()).await.expect("PostgreSQL opens");
    Kept { store, _dir: dir }
}

/// Makes two tests of one: `name::sqlite` and `name::postgres`.
macro_rules! on_both_stores {
    ($(async fn $name:ident($store:ident: Store) $body:block)+) => {
        $(mod $name {
            use super::*;
            async fn check($store: Store) $body
            #[tokio::test]
            async fn sqlite() {
                let kept = crate::stores::sqlite().await;
                check(kept.store.clone()).await;
            }
            #[tokio::test]
            async fn postgres() {
                let kept = crate::stores::postgres().await;
                check(kept.store.clone()).await;
            }
        })+
    };
}
pub(crate) use on_both_stores;
