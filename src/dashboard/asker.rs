//! One thread that asks the store, one question after the other, and takes up a connection that was lost.

use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};

use super::board::Board;
use crate::base::error::{Error, Result};
use crate::sink::store;

/// Questions that wait; who comes later waits to be one of them.
const WAITING: usize = 32;

type Question = Box<dyn FnOnce(&mut Desk) + Send>;

/// Hands questions to the thread, which ends with the last of these. It is no thread of a runtime: PostgreSQL's client
/// has a runtime of its own, and panics where it is dropped within another.
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

    /// Where nobody waits for the answer any more, a question that has begun goes on: the board keeps what it finds.
    ///
    /// # Errors
    /// As [`super::board`]'s questions; [`Error::Failed`] where the thread has ended.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl Fn(&mut Board) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        let question: Question = Box::new(move |desk| {
            if !answer.is_closed() {
                // Who asked may have gone meanwhile.
                let _ = answer.send(desk.ask(&question));
            }
        });
        let ended = || Error::failed("the thread that asks the store has ended");
        self.0.send(question).await.map_err(|_| ended())?;
        answered.await.unwrap_or_else(|_| Err(ended()))
    }

    /// Waits for the thread's end, which only a fault can bring while this is there.
    pub(super) async fn ended(&self) {
        self.0.closed().await;
    }
}

struct Desk {
    url: String,
    board: Board,
}

impl Desk {
    /// A server that goes away and comes back leaves a connection that fails for ever: what failed is asked once more
    /// on a new one.
    fn ask<T>(&mut self, question: &impl Fn(&mut Board) -> Result<T>) -> Result<T> {
        match question(&mut self.board) {
            Ok(answer) => Ok(answer),
            Err(first) => {
                tracing::debug!("the store is opened again: {first}");
                self.board.reopen(store::open(&self.url)?);
                question(&mut self.board)
            }
        }
    }
}
