//! Where the state of a stream is kept: a file, memory, or a place of the caller.

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::whole_file::{Error as FileError, WholeFile};

/// An error of a store.
pub type StoreError = Box<dyn std::error::Error + Send + Sync>;

/// Keeps the state of one stream, so that a program that ends and starts again continues after the last item that it has
/// processed.
///
/// The methods run on threads for work that blocks, one at a time.
pub trait Store: Send + Sync + 'static {
    /// The state that was saved last, or `None` if there is none. A state that is damaged or empty must not be `None`: the
    /// stream would start from the beginning.
    fn load(&self) -> Result<Option<String>, StoreError>;

    /// Keeps a state instead of the one before. After it returned, the state must survive what the program is prepared
    /// for.
    fn save(&self, state: &str) -> Result<(), StoreError>;

    /// What errors call it: `a.state`, `the store`.
    fn name(&self) -> String {
        "the store".into()
    }
}

/// Keeps the state while the program runs: for tests, and for streams that are opened several times.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<Option<String>>);

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Store for MemoryStore {
    fn load(&self) -> Result<Option<String>, StoreError> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn save(&self, state: &str) -> Result<(), StoreError> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(state.to_owned());
        Ok(())
    }
}

impl<S: Store> Store for std::sync::Arc<S> {
    fn load(&self) -> Result<Option<String>, StoreError> {
        self.as_ref().load()
    }

    fn save(&self, state: &str) -> Result<(), StoreError> {
        self.as_ref().save(state)
    }

    fn name(&self) -> String {
        self.as_ref().name()
    }
}

/// The longest state.
const MAX_BYTES: u64 = 64 * 1024;
/// How long a file that is in use is awaited: the stream before may be saving its last state.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(10);

/// Keeps the state in a file. A new state is written beside the file, synced, and renamed over it, so that a crash leaves
/// one of the two. The file is locked while a stream has it; another stream, also in another process, gets an error. A
/// new file is readable by its owner only.
#[derive(Debug)]
pub struct FileStore {
    path: PathBuf,
    file: Mutex<Option<WholeFile>>,
}

impl FileStore {
    /// A store in the file with this path. Its directory must exist. The file is made by the first state.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), file: Mutex::default() }
    }
}

impl Store for FileStore {
    fn load(&self) -> Result<Option<String>, StoreError> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let until = Instant::now() + PATIENCE;
        if file.is_none() {
            *file = loop {
                match WholeFile::open(&self.path) {
                    Err(FileError::InUse(_)) if Instant::now() < until => std::thread::sleep(PAUSE),
                    opened => break opened?,
                }
            };
        }
        let Some(file) = file.as_ref() else { return Ok(None) };
        Ok(Some(String::from_utf8_lossy(&file.read(MAX_BYTES)?).into_owned()))
    }

    fn save(&self, state: &str) -> Result<(), StoreError> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let text = format!("{state}\n");
        match file.as_mut() {
            Some(file) => file.replace(&text)?,
            None => *file = Some(WholeFile::create(&self.path, &text)?),
        }
        Ok(())
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}
