//! SQLite on the thread of whoever asks, as an executor of sqlx.
//!
//! sqlx gives each connection of SQLite a thread of its own and sends it every statement: two switches of threads each, which cost
//! several times what the statement does, and an incident takes a hundred of them. Here a statement runs where it is awaited, to
//! its end. That suits short ones; long ones would hold up what else runs on that thread.
//!
//! A driver's traits ask for more than an executor: how to connect by URL, statements to keep. What is not used here has
//! [`Never`] for its type, of which there is no value.

use std::{
    borrow::Cow, cell::Cell, collections::HashMap, fmt, path::Path, str::FromStr, sync::Arc, time::Duration,
};

use rusqlite::{OpenFlags, Statement, config::DbConfig, hooks::Wal, types::Value};
use sqlx_core::{
    Either,
    arguments::Arguments,
    column::{Column, ColumnIndex},
    connection::{ConnectOptions, Connection},
    database::{Database, HasStatementCache},
    decode::Decode,
    describe::Describe,
    encode::{Encode, IsNull},
    error::{BoxDynError, DatabaseError, Error, ErrorKind, Result},
    executor::{Execute, Executor},
    row::Row,
    sql_str::SqlStr,
    transaction::{Transaction, TransactionManager},
    type_info::TypeInfo,
    types::Type,
    value::ValueRef,
};

type BoxFuture<'a, T> = futures_util::future::BoxFuture<'a, T>;
type BoxStream<'a, T> = futures_util::stream::BoxStream<'a, T>;

/// A connection to a file.
pub struct Inline {
    connection: rusqlite::Connection,
    /// The columns of statements that are kept prepared.
    columns: HashMap<Box<str>, Arc<[LiteColumn]>>,
}

/// What a connection is opened for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum For {
    /// Its commits reach the log, which [`super::durable`] syncs; [`checkpoint`] writes it back.
    Writing,
    /// What nobody needs after a crash, and nobody else reads.
    Scratch,
    Reading,
}

/// How long to wait for a lock that another process holds.
pub const BUSY: Duration = Duration::from_secs(5);
/// In kilobytes: what a batch of correlation touches fits, and is not read from the system for each batch.
pub const WRITER_CACHE: i64 = 16_384;
pub const READER_CACHE: i64 = 2048;
/// What is changed and not committed beyond that goes to the file.
const SCRATCH_CACHE: i64 = 65_536;
/// In pages: a flood changes the same ones again and again, and only their last state is written back.
pub const CHECKPOINT: i32 = 4000;
/// How long writers wait for readers of a log that is to begin anew.
const RESTART: Duration = Duration::from_millis(20);
/// Prepared statements that are kept.
pub const STATEMENTS: usize = 256;

thread_local! {
    /// How many pages the log has after the last commit on this thread; 0 if that had nothing to write.
    static LOGGED: Cell<i32> = const { Cell::new(0) };
}

fn logged(_: &Wal, pages: i32) -> rusqlite::Result<()> {
    LOGGED.set(pages);
    Ok(())
}

/// Writes the log of a file back into it, as far as its readers allow, while others write to the log.
pub fn checkpoint(path: &Path) -> Result<()> {
    let c = rusqlite::Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(failed)?;
    c.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).map_err(failed)
}

impl Inline {
    /// Opens a file that is there and has its schema.
    pub fn open(path: &Path, purpose: For) -> Result<Self> {
        let (mode, cache) = match purpose {
            For::Writing => (OpenFlags::SQLITE_OPEN_READ_WRITE, WRITER_CACHE),
            For::Scratch => (OpenFlags::SQLITE_OPEN_READ_WRITE, SCRATCH_CACHE),
            For::Reading => (OpenFlags::SQLITE_OPEN_READ_ONLY, READER_CACHE),
        };
        let open = || -> rusqlite::Result<rusqlite::Connection> {
            // Only one thread at a time has it: it is not shared, and SQLite need not lock it.
            let c = rusqlite::Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
            c.busy_timeout(BUSY)?;
            // The log is synced before it is written back, and the file after that; not at each commit.
            c.pragma_update(None, "synchronous", if purpose == For::Scratch { "OFF" } else { "NORMAL" })?;
            c.pragma_update(None, "foreign_keys", "ON")?;
            c.pragma_update(None, "temp_store", "MEMORY")?;
            c.pragma_update(None, "cache_size", -cache)?;
            // By default a plan depends on what is bound to LIMIT, and is made anew for each run.
            c.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
            // Takes the place of the checkpoints that SQLite makes by itself, in the midst of a commit.
            c.wal_hook(Some(logged));
            c.set_prepared_statement_cache_capacity(STATEMENTS);
            // Its log is there once something was read.
            c.query_row("PRAGMA user_version", [], |_| Ok(()))?;
            Ok(c)
        };
        Ok(Self { connection: open().map_err(failed)?, columns: HashMap::new() })
    }

    /// Runs one statement that binds nothing.
    pub fn run(&mut self, statement: &'static str) -> Result<()> {
        self.connection.prepare_cached(statement).and_then(|mut s| s.raw_execute()).map_err(failed)?;
        Ok(())
    }

    /// Commits the open transaction into the log: how many pages that has now, if anything was written.
    pub fn commit(&mut self) -> Result<Option<i32>> {
        LOGGED.set(0);
        self.run("COMMIT")?;
        Ok(Some(LOGGED.get()).filter(|pages| *pages > 0))
    }

    /// Writes the rest of the log back, so that whoever writes next begins it anew; false if somebody reads it still.
    pub fn restart_log(&mut self) -> Result<bool> {
        self.connection.busy_timeout(RESTART).map_err(failed)?;
        let is_busy =
            self.connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |row| row.get::<_, bool>(0));
        self.connection.busy_timeout(BUSY).map_err(failed)?;
        is_busy.map(|is_busy| !is_busy).map_err(failed)
    }

    /// Begins a transaction that writes, if nobody else does right now.
    pub fn try_begin_immediate(&mut self) -> Result<bool> {
        self.connection.busy_timeout(Duration::ZERO).map_err(failed)?;
        let begun = self.run("BEGIN IMMEDIATE");
        self.connection.busy_timeout(BUSY).map_err(failed)?;
        match begun {
            Ok(()) => Ok(true),
            Err(Error::Database(e))
                if e.downcast_ref::<Failure>().primary() == rusqlite::ffi::SQLITE_BUSY =>
            {
                Ok(false)
            }
            Err(e) => Err(e),
        }
    }

    pub fn close(self) -> Result<()> {
        self.connection.close().map_err(|(_, e)| failed(e))
    }

    fn all<'q>(&mut self, mut query: impl Execute<'q, Lite>) -> Result<(Changed, Vec<LiteRow>)> {
        let arguments = query.take_arguments().map_err(Error::Encode)?.unwrap_or_default();
        let keep = query.persistent();
        let sql = query.sql();
        let sql = sql.as_str();
        let rows = if keep {
            let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
            let columns = match self.columns.get(sql) {
                Some(known) => known.clone(),
                None => {
                    let columns = columns(&statement);
                    if self.columns.len() < STATEMENTS {
                        self.columns.insert(sql.into(), columns.clone());
                    }
                    columns
                }
            };
            rows(&mut statement, sql, columns, &arguments.0)?
        } else {
            let mut statement = self.connection.prepare(sql).map_err(failed)?;
            let columns = columns(&statement);
            rows(&mut statement, sql, columns, &arguments.0)?
        };
        Ok((Changed(self.connection.changes()), rows))
    }
}

fn columns(statement: &Statement<'_>) -> Arc<[LiteColumn]> {
    let names = statement.column_names().into_iter().enumerate();
    names.map(|(ordinal, name)| LiteColumn { ordinal, name: name.to_owned() }).collect()
}

/// Binds, and runs to the end.
fn rows(
    statement: &mut Statement<'_>,
    sql: &str,
    columns: Arc<[LiteColumn]>,
    arguments: &[Value],
) -> Result<Vec<LiteRow>> {
    let is_numbered = sql.contains('$');
    for parameter in 1..=statement.parameter_count() {
        // `$2` is a name to SQLite, numbered by where it comes first; a plain `?` is counted.
        let name = is_numbered.then(|| statement.parameter_name(parameter)).flatten();
        let number = name.map_or(Some(parameter), |name| name.get(1..)?.parse().ok());
        let value = number.and_then(|n: usize| arguments.get(n.checked_sub(1)?));
        let value = value.ok_or_else(|| Error::Protocol(format!("parameter {parameter} has no value")))?;
        statement.raw_bind_parameter(parameter, value).map_err(failed)?;
    }
    let mut rows = statement.raw_query();
    let mut read = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        let values =
            (0..columns.len()).map(|i| row.get(i)).collect::<rusqlite::Result<_>>().map_err(failed)?;
        read.push(LiteRow { columns: columns.clone(), values });
    }
    Ok(read)
}

impl fmt::Debug for Inline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inline")
    }
}

impl<'c> Executor<'c> for &'c mut Inline {
    type Database = Lite;

    fn execute<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Changed>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Lite>,
    {
        Box::pin(async move { Ok(self.all(query)?.0) })
    }

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Either<Changed, LiteRow>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Lite>,
    {
        let all = std::iter::once_with(move || self.all(query)).flat_map(|outcome| match outcome {
            Ok((changed, rows)) => {
                let rows = rows.into_iter().map(|row| Ok(Either::Right(row)));
                Either::Left(rows.chain([Ok(Either::Left(changed))]))
            }
            Err(e) => Either::Right(std::iter::once(Err(e))),
        });
        Box::pin(futures_util::stream::iter(all))
    }

    fn fetch_all<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Vec<LiteRow>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Lite>,
    {
        Box::pin(async move { Ok(self.all(query)?.1) })
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<LiteRow>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Lite>,
    {
        Box::pin(async move { Ok(self.all(query)?.1.into_iter().next()) })
    }

    fn prepare_with<'e>(self, _: SqlStr, _: &'e [Affinity]) -> BoxFuture<'e, Result<Never>>
    where
        'c: 'e,
    {
        Box::pin(std::future::ready(Err(not_here())))
    }

    fn describe<'e>(self, _: SqlStr) -> BoxFuture<'e, Result<Describe<Lite>>>
    where
        'c: 'e,
    {
        Box::pin(std::future::ready(Err(not_here())))
    }
}

fn not_here() -> Error {
    Error::Configuration("this kind of connection only runs statements, and prepares them as it does".into())
}

/// The database as sqlx's types know it.
#[derive(Debug)]
pub struct Lite;

impl Database for Lite {
    type Connection = Never;
    type TransactionManager = Never;
    type Row = LiteRow;
    type QueryResult = Changed;
    type Column = LiteColumn;
    type TypeInfo = Affinity;
    type Value = LiteValue;
    type ValueRef<'r> = LiteValueRef<'r>;
    type Arguments = LiteArguments;
    type ArgumentBuffer = Vec<Value>;
    type Statement = Never;
    const NAME: &'static str = "SQLite";
    const URL_SCHEMES: &'static [&'static str] = &[];
}

/// By rusqlite; see [`sqlx::query::Query::persistent`].
impl HasStatementCache for Lite {}

/// Rows that a statement changed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Changed(u64);

impl Changed {
    pub fn rows_affected(self) -> u64 {
        self.0
    }
}

impl Extend<Changed> for Changed {
    fn extend<T: IntoIterator<Item = Changed>>(&mut self, more: T) {
        self.0 += more.into_iter().map(|c| c.0).sum::<u64>();
    }
}

/// What a statement's parameters are bound to, in the order of their numbers.
#[derive(Default)]
pub struct LiteArguments(Vec<Value>);

impl Arguments for LiteArguments {
    type Database = Lite;

    fn reserve(&mut self, additional: usize, _: usize) {
        self.0.reserve(additional);
    }

    fn add<'t, T>(&mut self, value: T) -> std::result::Result<(), BoxDynError>
    where
        T: Encode<'t, Lite> + Type<Lite>,
    {
        if let IsNull::Yes = value.encode(&mut self.0)? {
            self.0.push(Value::Null);
        }
        Ok(())
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

sqlx_core::impl_into_arguments_for_arguments!(LiteArguments);
sqlx_core::impl_encode_for_option!(Lite);

#[derive(Debug)]
pub struct LiteColumn {
    ordinal: usize,
    name: String,
}

impl Column for LiteColumn {
    type Database = Lite;

    fn ordinal(&self) -> usize {
        self.ordinal
    }
    fn name(&self) -> &str {
        &self.name
    }
    /// Values have types in SQLite, columns do not.
    fn type_info(&self) -> &Affinity {
        &Affinity::Null
    }
}

pub struct LiteRow {
    columns: Arc<[LiteColumn]>,
    values: Box<[Value]>,
}

impl Row for LiteRow {
    type Database = Lite;

    fn columns(&self) -> &[LiteColumn] {
        &self.columns
    }
    fn try_get_raw<I: ColumnIndex<Self>>(&self, index: I) -> Result<LiteValueRef<'_>> {
        Ok(LiteValueRef(&self.values[index.index(self)?]))
    }
}

sqlx_core::impl_column_index_for_row!(LiteRow);

impl ColumnIndex<LiteRow> for &'_ str {
    fn index(&self, row: &LiteRow) -> Result<usize> {
        let at = row.columns.iter().position(|c| c.name == *self);
        at.ok_or_else(|| Error::ColumnNotFound((*self).into()))
    }
}

pub struct LiteValue(Value);

#[derive(Clone, Copy)]
pub struct LiteValueRef<'r>(&'r Value);

impl sqlx_core::value::Value for LiteValue {
    type Database = Lite;

    fn as_ref(&self) -> LiteValueRef<'_> {
        LiteValueRef(&self.0)
    }
    fn type_info(&self) -> Cow<'_, Affinity> {
        Cow::Owned(Affinity::of(&self.0))
    }
    fn is_null(&self) -> bool {
        self.0 == Value::Null
    }
}

impl<'r> ValueRef<'r> for LiteValueRef<'r> {
    type Database = Lite;

    fn to_owned(&self) -> LiteValue {
        LiteValue(self.0.clone())
    }
    fn type_info(&self) -> Cow<'_, Affinity> {
        Cow::Owned(Affinity::of(self.0))
    }
    fn is_null(&self) -> bool {
        *self.0 == Value::Null
    }
}

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Affinity {
    Null,
    Integer,
    Real,
    Text,
    Blob,
}

impl Affinity {
    fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Integer(_) => Self::Integer,
            Value::Real(_) => Self::Real,
            Value::Text(_) => Self::Text,
            Value::Blob(_) => Self::Blob,
        }
    }
}

impl fmt::Display for Affinity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl TypeInfo for Affinity {
    fn is_null(&self) -> bool {
        *self == Self::Null
    }
    fn name(&self) -> &str {
        match self {
            Self::Null => "NULL",
            Self::Integer => "INTEGER",
            Self::Real => "REAL",
            Self::Text => "TEXT",
            Self::Blob => "BLOB",
        }
    }
}

/// What Rust's types are in SQLite, there and back.
macro_rules! types {
    ($($rust:ty => $affinity:ident, |$value:ident| $encode:expr, |$stored:ident| $decode:expr;)+) => { $(
        impl Type<Lite> for $rust {
            fn type_info() -> Affinity {
                Affinity::$affinity
            }
        }
        impl Encode<'_, Lite> for $rust {
            fn encode_by_ref(&self, buffer: &mut Vec<Value>) -> std::result::Result<IsNull, BoxDynError> {
                let $value = self;
                buffer.push($encode);
                Ok(IsNull::No)
            }
        }
        impl<'r> Decode<'r, Lite> for $rust {
            fn decode(value: LiteValueRef<'r>) -> std::result::Result<Self, BoxDynError> {
                match value.0 {
                    Value::$affinity($stored) => Ok($decode),
                    other => Err(format!("{} instead of {}", Affinity::of(other), Affinity::$affinity).into()),
                }
            }
        }
    )+ };
}

types! {
    i64 => Integer, |v| Value::Integer(*v), |s| *s;
    i32 => Integer, |v| Value::Integer((*v).into()), |s| i32::try_from(*s)?;
    bool => Integer, |v| Value::Integer((*v).into()), |s| *s != 0;
    f64 => Real, |v| Value::Real(*v), |s| *s;
    String => Text, |v| Value::Text(v.clone()), |s| s.clone();
    Vec<u8> => Blob, |v| Value::Blob(v.clone()), |s| s.clone();
}

impl Type<Lite> for str {
    fn type_info() -> Affinity {
        Affinity::Text
    }
}

impl Encode<'_, Lite> for &'_ str {
    fn encode_by_ref(&self, buffer: &mut Vec<Value>) -> std::result::Result<IsNull, BoxDynError> {
        buffer.push(Value::Text((*self).to_owned()));
        Ok(IsNull::No)
    }
}

impl Type<Lite> for [u8] {
    fn type_info() -> Affinity {
        Affinity::Blob
    }
}

impl Encode<'_, Lite> for &'_ [u8] {
    fn encode_by_ref(&self, buffer: &mut Vec<Value>) -> std::result::Result<IsNull, BoxDynError> {
        buffer.push(Value::Blob(self.to_vec()));
        Ok(IsNull::No)
    }
}

/// SQLite's own error.
#[derive(Debug, thiserror::Error)]
#[error("(code: {code}) {message}")]
pub struct Failure {
    /// The extended code: <https://www.sqlite.org/rescode.html>.
    code: i32,
    message: String,
}

impl Failure {
    fn primary(&self) -> i32 {
        self.code & 0xff
    }
}

/// Any error of rusqlite as sqlx's.
fn failed(error: rusqlite::Error) -> Error {
    let (code, message) = match error {
        rusqlite::Error::SqliteFailure(e, message) => (e.extended_code, message),
        other => return Error::Decode(Box::new(other)),
    };
    let message = message.unwrap_or_else(|| rusqlite::ffi::code_to_str(code).to_owned());
    Error::Database(Box::new(Failure { code, message }))
}

impl DatabaseError for Failure {
    fn message(&self) -> &str {
        &self.message
    }
    fn code(&self) -> Option<Cow<'_, str>> {
        Some(self.code.to_string().into())
    }
    fn as_error(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        self
    }
    fn as_error_mut(&mut self) -> &mut (dyn std::error::Error + Send + Sync + 'static) {
        self
    }
    fn into_error(self: Box<Self>) -> Box<dyn std::error::Error + Send + Sync + 'static> {
        self
    }
    fn kind(&self) -> ErrorKind {
        use rusqlite::ffi;
        match self.code {
            ffi::SQLITE_CONSTRAINT_UNIQUE
            | ffi::SQLITE_CONSTRAINT_PRIMARYKEY
            | ffi::SQLITE_CONSTRAINT_ROWID => ErrorKind::UniqueViolation,
            ffi::SQLITE_CONSTRAINT_FOREIGNKEY => ErrorKind::ForeignKeyViolation,
            ffi::SQLITE_CONSTRAINT_NOTNULL => ErrorKind::NotNullViolation,
            ffi::SQLITE_CONSTRAINT_CHECK => ErrorKind::CheckViolation,
            _ => ErrorKind::Other,
        }
    }
}

/// There is no value of it.
#[derive(Clone, Debug)]
pub enum Never {}

impl Connection for Never {
    type Database = Lite;
    type Options = Never;

    async fn close(self) -> Result<()> {
        match self {}
    }
    async fn close_hard(self) -> Result<()> {
        match self {}
    }
    async fn ping(&mut self) -> Result<()> {
        match *self {}
    }
    async fn begin(&mut self) -> Result<Transaction<'_, Lite>> {
        match *self {}
    }
    fn shrink_buffers(&mut self) {
        match *self {}
    }
    async fn flush(&mut self) -> Result<()> {
        match *self {}
    }
    fn should_flush(&self) -> bool {
        match *self {}
    }
}

impl FromStr for Never {
    type Err = Error;
    fn from_str(_: &str) -> Result<Self> {
        Err(Error::Configuration("this kind of connection is opened by its file's path".into()))
    }
}

impl ConnectOptions for Never {
    type Connection = Never;

    fn from_url(url: &url::Url) -> Result<Self> {
        url.as_str().parse()
    }
    async fn connect(&self) -> Result<Never> {
        match *self {}
    }
    fn log_statements(self, _: log::LevelFilter) -> Self {
        match self {}
    }
    fn log_slow_statements(self, _: log::LevelFilter, _: Duration) -> Self {
        match self {}
    }
}

impl TransactionManager for Never {
    type Database = Lite;

    async fn begin(connection: &mut Never, _: Option<SqlStr>) -> Result<()> {
        match *connection {}
    }
    async fn commit(connection: &mut Never) -> Result<()> {
        match *connection {}
    }
    async fn rollback(connection: &mut Never) -> Result<()> {
        match *connection {}
    }
    fn start_rollback(connection: &mut Never) {
        match *connection {}
    }
    fn get_transaction_depth(connection: &Never) -> usize {
        match *connection {}
    }
}

impl sqlx_core::statement::Statement for Never {
    type Database = Lite;

    fn into_sql(self) -> SqlStr {
        match self {}
    }
    fn sql(&self) -> &SqlStr {
        match *self {}
    }
    fn parameters(&self) -> Option<Either<&[Affinity], usize>> {
        match *self {}
    }
    fn columns(&self) -> &[LiteColumn] {
        match *self {}
    }
    sqlx_core::impl_statement_query!(LiteArguments);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("x.db");
        let c = rusqlite::Connection::open(&path).expect("made");
        c.execute_batch(
            "PRAGMA journal_mode = WAL; CREATE TABLE t (i INTEGER UNIQUE, r REAL, s TEXT, b BLOB, f BOOLEAN)",
        )
        .expect("made");
        (dir, path)
    }

    #[tokio::test]
    async fn values_come_back_as_they_were_bound() {
        type Row = (i64, f64, String, Vec<u8>, bool);
        type Nothing = (Option<i64>, Option<f64>, Option<String>, Option<Vec<u8>>, Option<bool>);
        let (_dir, path) = file();
        let mut c = Inline::open(&path, For::Writing).expect("opens");
        // By number, wherever they stand.
        let put = "INSERT INTO t (f, b, s, r, i) VALUES ($5, $4, $3, $2, $1)";
        let bound = sqlx::query(put).bind(7_i64).bind(0.5).bind("ä").bind(vec![0_u8, 255]).bind(true);
        assert_eq!(bound.execute(&mut c).await.expect("inserted").rows_affected(), 1);
        let row: Row = sqlx::query_as("SELECT * FROM t").fetch_one(&mut c).await.expect("read");
        assert_eq!(row, (7, 0.5, "ä".into(), vec![0, 255], true));

        sqlx::query("UPDATE t SET i = $1, r = $1, s = $1, b = $1, f = $1")
            .bind(None::<i64>)
            .execute(&mut c)
            .await
            .expect("updated");
        let row: Nothing = sqlx::query_as("SELECT * FROM t").fetch_one(&mut c).await.expect("read");
        assert_eq!(row, (None, None, None, None, None));
    }

    #[tokio::test]
    async fn what_does_not_fit_is_an_error() {
        let (_dir, path) = file();
        let mut c = Inline::open(&path, For::Writing).expect("opens");
        let insert = || sqlx::query("INSERT INTO t (i, s) VALUES (1, 'x')");
        insert().execute(&mut c).await.expect("the first");
        let again = insert().execute(&mut c).await.expect_err("the second");
        assert!(again.as_database_error().is_some_and(|e| e.is_unique_violation()), "{again}");

        let number: Result<i64> = sqlx::query_scalar("SELECT s FROM t").fetch_one(&mut c).await;
        assert!(number.expect_err("a text").to_string().contains("TEXT"));
        let missing = sqlx::query("SELECT $1, $2").bind(1_i64).execute(&mut c).await;
        assert!(missing.expect_err("one is missing").to_string().contains("parameter 2 has no value"));
        let nonsense = sqlx::query("SELECT FROM").execute(&mut c).await.expect_err("no SQL");
        assert!(nonsense.to_string().contains("syntax error"), "{nonsense}");

        let mut reader = Inline::open(&path, For::Reading).expect("opens");
        let read_only = insert().execute(&mut reader).await.expect_err("it only reads");
        assert_eq!(read_only.as_database_error().and_then(|e| e.code()).as_deref(), Some("8"));
    }

    #[test]
    fn a_file_that_another_process_holds_is_told_at_once() {
        let (_dir, path) = file();
        let mut c = Inline::open(&path, For::Writing).expect("opens");
        let other = rusqlite::Connection::open(&path).expect("opens");
        other.execute_batch("BEGIN IMMEDIATE").expect("held");
        assert!(!c.try_begin_immediate().expect("it is only busy"));
        other.execute_batch("ROLLBACK").expect("given back");
        assert!(c.try_begin_immediate().expect("it is free"));
    }
}
