package perennial

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Store keeps the state of one stream, so that a program that ends and starts again continues after the last item that it
// has processed.
type Store interface {
	// Load returns the state that was saved last, and whether there is one.
	Load() (state string, found bool, err error)
	// Save keeps a state instead of the one before. After it returned, the state must survive what the program is
	// prepared for.
	Save(state string) error
}

// MemoryStore keeps the state while the program runs: for tests, and for streams that are opened several times. Its zero
// value is empty.
type MemoryStore struct {
	mutex sync.Mutex
	state string
}

// Load returns the state that was saved last, and whether there is one.
func (m *MemoryStore) Load() (string, bool, error) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	return m.state, m.state != "", nil
}

// Save keeps a state.
func (m *MemoryStore) Save(state string) error {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.state = state
	return nil
}

// FileStore keeps the state in a file. A state is written to a file beside it, synchronized, and renamed over the one
// before, so that a crash leaves one of the two. The file is readable by its owner only.
type FileStore struct {
	path string
	// hasSynced is true when the entry of the directory is on disk.
	hasSynced bool
}

// NewFileStore returns a store in the file with this path. Its directory must exist.
func NewFileStore(path string) *FileStore { return &FileStore{path: path} }

// Load returns the state in the file. A missing file is no state; an empty one is a [StateError].
func (f *FileStore) Load() (string, bool, error) {
	text, err := os.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	if len(text) == 0 {
		return "", false, &StateError{Place: f.path, Fault: "is empty"}
	}
	return string(text), true, nil
}

// Save replaces the file.
func (f *FileStore) Save(state string) error {
	beside := f.path + ".new"
	if err := writeSynced(beside, state); err != nil {
		return err
	}
	if err := os.Rename(beside, f.path); err != nil {
		return err
	}
	if f.hasSynced {
		return nil
	}
	directory, err := os.Open(filepath.Dir(f.path))
	if err != nil {
		return err
	}
	defer directory.Close()
	if err := directory.Sync(); err != nil {
		return err
	}
	f.hasSynced = true
	return nil
}

func writeSynced(path, text string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := file.WriteString(text + "\n"); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	return file.Close()
}

// How often a stream without items saves its cursor.
const saveIdle = time.Second

// keeper saves the state of a stream: at once, or at most once in a given time.
type keeper struct {
	store Store
	every time.Duration

	mutex sync.Mutex
	// state makes the text that is not saved yet; nil if there is none.
	state func() string
	saved time.Time
	timer *time.Timer
	err   error
}

// done takes the state after an item was processed.
func (k *keeper) done(state func() string) error {
	return k.take(state, k.every)
}

// idle takes the state after a response without items.
func (k *keeper) idle(state func() string) error {
	return k.take(state, max(k.every, saveIdle))
}

func (k *keeper) take(state func() string, every time.Duration) error {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	k.state = state
	wait := every - time.Since(k.saved)
	if wait <= 0 {
		k.save()
	} else if k.timer == nil {
		k.timer = time.AfterFunc(wait, func() {
			k.mutex.Lock()
			defer k.mutex.Unlock()
			k.timer = nil
			k.save()
		})
	}
	return k.err
}

// finish saves what is not saved yet.
func (k *keeper) finish() error {
	if k.store == nil {
		return nil
	}
	k.mutex.Lock()
	defer k.mutex.Unlock()
	if k.timer != nil {
		k.timer.Stop()
		k.timer = nil
	}
	k.save()
	return k.err
}

func (k *keeper) save() {
	if k.state == nil || k.err != nil {
		return
	}
	k.err = k.store.Save(k.state())
	k.state, k.saved = nil, time.Now()
}
