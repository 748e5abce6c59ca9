//! One thread asks the store, one question after the other. It connects again if the connection was lost.

use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};

use super::board::Board;
use crate::base::error::{Error, Result};
use crate::sink::store;

/// How many questions can wait for the thread. Later callers wait for a free place.
const WAITING: usize = 32;

type Question = Box<dyn FnOnce(&mut Desk) + Send>;

/// Hands questions to the thread. The thread ends when the last `Asker` is dropped. It does not belong to a runtime,
/// because PostgreSQL's client has its own runtime and panics if it is dropped within another one.
#[derive(Clone)]
pub(super) struct Asker(mpsc::Sender<Question>);

impl Asker {
    /// Opens the store that `url` names.
    ///
    /// # Errors
    /// As [`store::open`].
    pub(super) fn start(url: &str) -> Result<(Asker, JoinHandle<()>)> {
        let board = Board::new(store::open(url)?, store::shown(url));
        let mut desk = Desk { url: url.to_owned(), board };
        let (sender, mut questions) = mpsc::channel::<Question>(WAITING);
        let work = move || {
            while let Some(question) = questions.blocking_recv() {
                question(&mut desk);
            }
        };
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(work);
        Ok((Asker(sender), thread.map_err(|e| Error::io("the page's thread", e))?))
    }

    /// A question that has begun goes on even if nobody waits for its answer any more: the board keeps the answer.
    ///
    /// # Errors
    /// As [`super::board`]'s questions; [`Error::Failed`] if the thread has ended.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl Fn(&mut Board) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        let question: Question = Box::new(move |desk| {
            if !answer.is_closed() {
                // The caller may be gone by now.
                let _ = answer.send(desk.ask(&question));
            }
        });
        let ended = || Error::failed("the thread that asks the store has ended");
        self.0.send(question).await.map_err(|_| ended())?;
        answered.await.unwrap_or_else(|_| Err(ended()))
    }

    /// Waits until the thread ends. While an `Asker` exists, only a fault can end it.
    pub(super) async fn ended(&self) {
        self.0.closed().await;
    }
}

struct Desk {
    url: String,
    board: Board,
}

impl Desk {
    /// If the server was gone for a while, the old connection fails for ever. So a failed question is asked once more, on
    /// a new connection.
    fn ask<T>(&mut self, question: &impl Fn(&mut Board) -> Result<T>) -> Result<T> {
        match question(&mut self.board) {
            Ok(answer) => Ok(answer),
            Err(first) => {
                tracing::debug!("opening the store again: {first}");
                self.board.reopen(store::open(&self.url)?);
                question(&mut self.board)
            }
        }
    }
}
