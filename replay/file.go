package replay

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"
)

const (
	defaultMaxBytes = 1 << 30
	tellEvery       = 10 * time.Second // at most one line about what was lost in that time
)

var (
	errClosed = errors.New("the file is closed")
	errFull   = errors.New("the file has reached its bound")
)

// file is a file of lines, of one writer, that nobody else may read. Losing a line
// is no error to whoever writes it: it is counted and, now and then, logged.
type file struct {
	logger *zap.Logger
	lost   atomic.Uint64

	// What is done to the file; fields, so that a test can make a disk fail.
	write    func([]byte) (int, error)
	truncate func(int64) error

	// mu is held across the write, so that lines are whole and in the order of
	// their writing.
	mu     sync.Mutex
	f      *os.File
	max    int64
	size   int64 // where the last line ends
	torn   bool  // half a line is behind it
	full   bool
	closed bool
	told   time.Time
	untold uint64 // lost since then
}

// openFile opens or creates the file at path, for at most limit bytes (0: 1 GiB).
func openFile(path string, limit int64, logger *zap.Logger) (_ *file, err error) {
	if limit < 0 {
		return nil, fmt.Errorf("a bound of %d bytes", limit)
	}
	if limit == 0 {
		limit = defaultMaxBytes
	}
	if logger == nil {
		logger = zap.NewNop()
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close() // and with it the lock
		}
	}()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errors.New("another writer has it open")
		}
		return nil, fmt.Errorf("locking: %w", err)
	}
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() { // a pipe would let a decision wait for its reader
		return nil, errors.New("not a regular file")
	}
	if fi.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("mode %v lets others have what is in it: chmod 600", fi.Mode().Perm())
	}
	out := &file{
		logger: logger.With(zap.String("file", path)), f: f, write: f.Write, truncate: f.Truncate,
		max: limit, size: fi.Size(),
	}
	if out.size > 0 {
		var last [1]byte
		if _, err := f.ReadAt(last[:], out.size-1); err != nil {
			return nil, fmt.Errorf("reading its end: %w", err)
		}
		out.torn = last[0] != '\n'
	}
	return out, nil
}

// append writes one line, newline and all, in one write; false: it is lost.
// Beyond the bound there are spare bytes more for this line.
func (f *file) append(line []byte, spare int64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.appendLocked(line, spare)
	if err != nil {
		f.loseLocked(err)
	}
	return err == nil
}

func (f *file) appendLocked(line []byte, spare int64) error {
	if f.closed {
		return errClosed
	}
	if f.torn { // of a crash, or of a write that could not be taken back: a bad line of its own
		line = append([]byte{'\n'}, line...)
	}
	if spare == 0 && f.full || f.size+int64(len(line)) > f.max+spare {
		if !f.full {
			f.full = true // a shorter line may fit, but a gap would be none that shows
			f.logger.Warn("the file has reached its bound: nothing more is written to it", zap.Int64("bytes", f.max))
		}
		return errFull
	}
	n, err := f.write(line)
	if err == nil && n < len(line) {
		err = io.ErrShortWrite
	}
	if err == nil {
		f.size += int64(n)
		f.torn = false
		return nil
	}
	if n > 0 {
		f.takeBackLocked(int64(n))
	}
	return err
}

// takeBackLocked removes the n bytes that a failed write has left at the end. They
// are counted from there, so that a file which somebody else has cut is not made
// longer.
func (f *file) takeBackLocked(n int64) {
	fi, err := f.f.Stat()
	if err == nil {
		err = f.truncate(max(0, fi.Size()-n))
	}
	if err != nil {
		f.size += n
		f.torn = true
	}
}

// lose counts a line that never came to be written.
func (f *file) lose(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.loseLocked(err)
}

func (f *file) loseLocked(err error) {
	f.lost.Add(1)
	f.untold++
	if now := time.Now(); err != errFull && (f.told.IsZero() || now.Sub(f.told) >= tellEvery) {
		f.told = now
		f.tellLocked(err)
	}
}

func (f *file) tellLocked(err error) {
	f.logger.Error("lines could not be written, and are lost", zap.Uint64("count", f.untold), zap.Error(err))
	f.untold = 0
}

// close gives up the file; what comes later is lost.
func (f *file) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	f.closed = true
	if f.untold > 0 {
		f.tellLocked(errClosed)
	}
	return f.f.Close()
}
