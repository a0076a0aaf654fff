package audit

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"
)

// Values of Config.Fsync.
const (
	FsyncAlways   = "always"   // before each Append returns: a power failure loses nothing that was answered
	FsyncInterval = "interval" // once a second: a power failure may lose the records of the last second
	FsyncNever    = "never"    // when the kernel does; a crash of the process alone loses nothing in any mode
)

// Config says where and how to record.
type Config struct {
	// File is the path of the log. It is created with mode 0600. While the Log
	// is open it must stay in its place and be written by nobody else. Moved,
	// removed or replaced, every Append fails until it is back. Cut (logrotate's
	// copytruncate does that) or written by another, every Append fails until a
	// restart. To rotate it: stop, move it away, start.
	File string
	// Fsync is one of the values above; "" is FsyncInterval.
	Fsync string
	// Key is the HMAC key of Digest: 32 random bytes.
	Key []byte
	// FoldAfter is how many denials without a verified identity one source may
	// have written one by one in a second; 0: 10. The others of that second are
	// counted, and written as one record for each source, kind and reason.
	FoldAfter int
	// Logger hears when the log cannot be written and when it can again, and
	// while records are refused how many, once in 10 seconds; nil: nobody does.
	Logger *zap.Logger
}

const (
	keySize     = 32
	tickEvery   = time.Second
	refuseEvery = 10 * time.Second // at most one line about refused records in that time
)

var errClosed = errors.New("the audit log is closed")

// Log appends records to one file. It is safe for concurrent use.
type Log struct {
	path   string
	fsync  string
	logger *zap.Logger
	opened os.FileInfo // which file it is
	macs   sync.Pool   // of hash.Hash, HMAC with the key
	bodies sync.Pool   // of *[]byte

	// What is done to the file; fields, so that a test can make a disk fail.
	write    func([]byte) (int, error)
	truncate func(int64) error
	sync     func() error

	// mu is held across the write, against the rule of the house: the order in
	// which lines reach the file is the sequence, and a line holds the hash of
	// the one before. The fsync of FsyncInterval is made outside.
	mu      sync.Mutex
	f       *os.File
	seq     uint64 // of the last record in the file
	prev    string // hash of its line
	size    int64  // where its line ends
	left    int64  // bytes behind size that a failed write left there, or a crash
	synced  uint64 // with FsyncInterval: seq up to which the file is known to be on disk
	lines   []byte // of the current write
	hash    hash.Hash
	folds   folds
	err     error  // why nothing can be recorded; nil: as far as is known, it can
	refused uint64 // records that were refused since err was set
	refusal tally  // refused records that no line has told of
	closed  bool
}

// Open opens or creates the log and continues its chain. A torn last line is
// moved to FILE.torn-N, which a record of KindRecovered tells. It fails if
// another process has the log open, if others may write the file, and if the
// end of the file is not that of such a log. How long it takes does not depend
// on the file's size: only Verify reads all of it.
func Open(c Config) (*Log, error) {
	l, err := open(c)
	if err != nil {
		return nil, fmt.Errorf("opening audit log %q: %w", c.File, err)
	}
	return l, nil
}

func open(c Config) (_ *Log, err error) {
	switch c.Fsync {
	case "":
		c.Fsync = FsyncInterval
	case FsyncAlways, FsyncInterval, FsyncNever:
	default:
		return nil, fmt.Errorf("fsync %q is not one of %s, %s, %s", c.Fsync, FsyncAlways, FsyncInterval, FsyncNever)
	}
	if len(c.Key) != keySize || hmac.Equal(c.Key, make([]byte, keySize)) {
		return nil, fmt.Errorf("the digest key must be %d random bytes", keySize)
	}
	if c.FoldAfter < 0 {
		return nil, fmt.Errorf("folding after %d denials a second", c.FoldAfter)
	}
	if c.FoldAfter == 0 {
		c.FoldAfter = defaultFoldAfter
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	f, err := openFile(c.File)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close() // and with it the lock
		}
	}()

	key := append([]byte(nil), c.Key...)
	l := &Log{
		path: c.File, fsync: c.Fsync, logger: c.Logger.With(zap.String("file", c.File)),
		f: f, write: f.Write, truncate: f.Truncate, sync: f.Sync,
		hash: sha256.New(), folds: newFolds(c.FoldAfter),
	}
	l.macs.New = func() any { return hmac.New(sha256.New, key) }
	l.bodies.New = func() any { b := make([]byte, 0, 1024); return &b }
	if err := l.resume(); err != nil {
		return nil, err
	}
	return l, nil
}

// openFile opens the file as its only writer.
func openFile(path string) (_ *os.File, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
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
	if !fi.Mode().IsRegular() { // from a pipe or /dev/null no record comes back
		return nil, errors.New("not a regular file")
	}
	if fi.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("mode %v lets others write it", fi.Mode().Perm())
	}
	return f, nil
}

// Append records one decision, as AppendAll does.
func (l *Log) Append(r Record) error { return l.AppendAll([]Record{r}) }

// AppendAll records the decisions of one request, of which there must be one,
// in one write: consecutive lines, all or none. Seq, Prev and Sum are set here.
// When it gives nil the kernel has the whole of each line (with FsyncAlways, the
// disk has it), or, of denials that are folded, this process has the count, which
// Run and Close write and only a crash loses. An error means that no decision of
// them is recorded: the caller denies. Only a crash amid the write, or before a
// failed one is taken back, may leave the first lines: records of decisions that
// nobody was told of.
func (l *Log) AppendAll(rs []Record) error {
	if len(rs) == 0 { // nil would tell the caller that it may answer
		return errors.New("no audit record")
	}
	for i := range rs {
		if err := rs[i].check(); err != nil {
			l.mu.Lock()
			defer l.mu.Unlock()
			return l.refuseLocked(rs, fmt.Errorf("record %d of %d: %w", i+1, len(rs), err))
		}
	}
	if foldable(rs) {
		if folded, err := l.fold(rs); folded || err != nil {
			return err
		}
	}
	pooled := l.bodies.Get().(*[]byte)
	defer l.bodies.Put(pooled)
	*pooled = appendBodies((*pooled)[:0], rs)
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.readyLocked()
	if err == nil {
		err = l.appendLocked(*pooled)
	}
	return l.refuseLocked(rs, err)
}

// refuseLocked counts the records as refused, if err says that they were. The
// line that tells of it is written here, and not by the doors: while nothing can
// be recorded, each call of a stranger would write one.
func (l *Log) refuseLocked(rs []Record, err error) error {
	if err == nil {
		return nil
	}
	if l.err != nil {
		l.refused += uint64(len(rs))
	}
	for i := range rs {
		l.refusal.add(1, rs[i].ID)
	}
	l.tellRefusedLocked(refuseEvery, err)
	return fmt.Errorf("writing audit record: %w", err)
}

// tellRefusedLocked writes what is to be told, if the last line is that long ago.
func (l *Log) tellRefusedLocked(every time.Duration, err error) {
	if told := l.refusal.tell(time.Now(), every); told.count > 0 {
		l.logger.Error("decisions could not be recorded, and are denials",
			zap.Int64("count", told.count), zap.Strings("decisions", told.ids), zap.Error(err))
	}
}

// bodyEnd stands between bodies; within one, a newline is escaped.
const bodyEnd = '\n'

func appendBodies(b []byte, rs []Record) []byte {
	for i := range rs {
		if i > 0 {
			b = append(b, bodyEnd)
		}
		b = appendBody(b, &rs[i])
	}
	return b
}

// appendLocked writes the next lines of the chain, one for each body: all of
// them or nothing.
func (l *Log) appendLocked(bodies []byte) error {
	b, seq, prev := l.lines[:0], l.seq, l.prev
	for body := range bytes.SplitSeq(bodies, []byte{bodyEnd}) {
		start := len(b)
		seq++
		b, prev = l.appendLineLocked(b, seq, prev, body)
		if len(b)-start > MaxLine+1 {
			return errTooLong // the limits of the fields keep this from happening
		}
	}
	l.lines = b

	if n, err := l.writeLocked(b); err != nil {
		l.left = int64(n)
		err = errors.Join(err, l.takeBackLocked())
		l.failLocked(err)
		return err
	}
	l.seq, l.prev = seq, prev
	l.size += int64(len(b))
	return nil
}

// appendLineLocked appends one line with its newline, and gives its hash.
func (l *Log) appendLineLocked(b []byte, seq uint64, prev string, body []byte) (_ []byte, hash string) {
	start := len(b)
	b = append(appendHead(b, seq, prev), body...)
	l.hash.Reset()
	l.hash.Write(b[start:])
	var sum [sha256.Size]byte
	n := len(b)
	b = append(b, sumStart...)
	b = hex.AppendEncode(b, l.hash.Sum(sum[:0]))
	b = append(b, sumEnd...)
	l.hash.Write(b[n:])
	return append(b, '\n'), hex.EncodeToString(l.hash.Sum(sum[:0]))
}

// writeLocked gives the number of bytes that are in the file, also with an error.
func (l *Log) writeLocked(b []byte) (int, error) {
	n, err := l.write(b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	if err == nil && l.fsync == FsyncAlways {
		if err = l.sync(); err != nil {
			err = fmt.Errorf("fsync: %w", err)
		}
	}
	return n, err
}

// Digest is the HMAC-SHA-256 of the canonical arguments with the log's key,
// hex; "" for no bytes. Keyed, because arguments are often guessed more easily
// than a hash is inverted.
func (l *Log) Digest(args []byte) string {
	if len(args) == 0 {
		return ""
	}
	mac := l.macs.Get().(hash.Hash)
	defer l.macs.Put(mac)
	mac.Reset()
	mac.Write(args)
	return hex.EncodeToString(mac.Sum(nil))
}

// Healthy gives nil if, as far as is known, the next record can be written.
func (l *Log) Healthy() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return errClosed
	}
	return l.err
}

// Run looks after the log once a second until ctx ends, and then gives nil: it
// writes what was folded, makes the fsync of FsyncInterval, sees whether the file
// is still as it was left, and tries to get a failed log going. It is needed in every mode: a
// service that is taken out of use because it is not Healthy gets no calls
// that could try.
func (l *Log) Run(ctx context.Context) error {
	t := time.NewTicker(tickEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			l.tick()
		}
	}
}

func (l *Log) tick() {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return
	}
	if l.readyLocked() == nil { // if it is not, l.err says why
		l.unfoldLocked(time.Now(), false)
	}
	l.tellRefusedLocked(refuseEvery, l.err)
	from, to := l.synced, l.seq
	l.mu.Unlock()
	if l.fsync != FsyncInterval || from == to {
		return
	}

	err := l.sync()
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed: // Close has made its own
	case err != nil:
		// The kernel may have dropped those pages and report it only once, so
		// a later success does not bring them back: say which they were.
		l.failLocked(fmt.Errorf("fsync: records %d to %d may not be on disk: %w", from+1, to, err))
	default:
		l.synced = max(l.synced, to)
	}
}

// Close writes what was folded, makes a last fsync and gives up the file. Later
// Appends fail. An error may mean that folded denials are not on record.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.tellRefusedLocked(0, l.err)
	err := l.unfoldLocked(time.Now(), true)
	if err != nil {
		err = fmt.Errorf("%d folded denials are not recorded: %w", l.folds.sum(), err)
	}
	l.closed = true
	if err := errors.Join(err, l.sync(), l.f.Close()); err != nil {
		return fmt.Errorf("closing audit log: %w", err)
	}
	return nil
}
