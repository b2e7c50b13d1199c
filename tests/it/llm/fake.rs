//! The far side of a socket: an HTTP server that answers as it is told, and remembers what it was asked.

use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// How it answers the next requests.
#[derive(Clone)]
pub enum Reply {
    Json(u16, Value),
    /// Status 200 with this body, whatever it is.
    Raw(String),
    /// Half an answer, then the connection is closed.
    BreakOff,
    /// Never.
    Hang,
}

/// One request: path and body.
#[derive(Clone, Debug)]
pub struct Asked {
    pub path: String,
    pub head: String,
    pub body: Value,
}

pub struct Fake {
    pub url: String,
    reply: Arc<Mutex<Reply>>,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: JoinHandle<()>,
}

impl Fake {
    pub async fn start(reply: Reply) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let (reply, asked) = (Arc::new(Mutex::new(reply)), Arc::<Mutex<Vec<Asked>>>::default());
        let (now, seen) = (reply.clone(), asked.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (now, seen) = (now.clone(), seen.clone());
                tokio::spawn(async move { serve(stream, &now, &seen).await });
            }
        });
        Self { url, reply, asked, task }
    }

    /// From now on.
    pub fn answer(&self, reply: Reply) {
        *self.reply.lock().expect("not poisoned") = reply;
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("not poisoned").clone()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One request on one connection.
async fn serve(mut stream: TcpStream, reply: &Mutex<Reply>, seen: &Mutex<Vec<Asked>>) {
    let Some(asked) = read(&mut stream).await else { return };
    seen.lock().expect("not poisoned").push(asked);
    let reply = reply.lock().expect("not poisoned").clone();
    let (status, body) = match reply {
        Reply::Json(status, body) => (status, body.to_string()),
        Reply::Raw(body) => (200, body),
        Reply::BreakOff => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"choices\":[").await;
            return;
        }
        Reply::Hang => return std::future::pending().await,
    };
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    // The client may have given up; that is its right.
    let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
}

async fn read(stream: &mut TcpStream) -> Option<Asked> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let length =
        head.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse::<usize>().ok()).unwrap_or(0);
    while bytes.len() < end + 4 + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let path = head.split_whitespace().nth(1)?.to_owned();
    let body = serde_json::from_slice(&bytes[end + 4..]).unwrap_or_default();
    Some(Asked { path, head, body })
}
