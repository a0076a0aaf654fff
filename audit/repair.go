package audit

import (
	"errors"
	"fmt"
	"os"

	"go.uber.org/zap"
)

// errForeign is what no repair can mend: where the chain ends is not known any
// more, and Open judges that. It stays until a restart, even if the size comes
// to be right again.
var errForeign = errors.New("this log did not do that and records nothing more: verify the file, move it away, restart")

// readyLocked gives nil if the log can be written. One that failed is brought
// back to its last whole record and tried with a record that says so.
func (l *Log) readyLocked() error {
	if l.closed {
		return errClosed
	}
	if errors.Is(l.err, errForeign) {
		return l.err
	}
	if err := l.inPlaceLocked(); err != nil {
		l.failLocked(err)
		return err
	}
	if l.err == nil {
		return nil
	}
	// What a write left behind may still be there, if it could not be taken
	// back at that time.
	if err := l.takeBackLocked(); err != nil {
		return err
	}
	if l.fsync == FsyncInterval {
		if err := l.sync(); err != nil {
			return fmt.Errorf("fsync: %w", err)
		}
		l.synced = l.seq
	}
	refused := l.refused
	body := appendBody(nil, &Record{
		Kind: KindResumed,
		Note: fmt.Sprintf("%d records were refused: %v", refused, l.err),
	})
	if err := l.appendLocked(body); err != nil {
		return err
	}
	l.err, l.refused = nil, 0
	l.refusal.count, l.refusal.ids = 0, nil // the next line tells of them
	l.logger.Info("audit log is written again", zap.Uint64("refused", refused))
	return nil
}

func (l *Log) failLocked(err error) {
	if errors.Is(l.err, errForeign) {
		return // of all that failed, what must be mended by hand
	}
	if l.err == nil || errors.Is(err, errForeign) {
		l.logger.Error("audit log cannot be written: every decision is now a denial", zap.Error(err))
	}
	l.err = err
}

// inPlaceLocked fails when the path no longer leads to the open file (what is
// then written is seen by nobody), and when the file is not as it was left. It
// is one stat, for each Append pays it: as long as a file is open, no other can
// get its inode. What is done between this and the write shows at the next call.
func (l *Log) inPlaceLocked() error {
	fi, err := os.Stat(l.path)
	if err == nil && !os.SameFile(fi, l.opened) {
		err = errors.New("another file is in its place")
	}
	if err != nil {
		return fmt.Errorf("the file was moved or removed: %w", err)
	}
	return l.checkSizeLocked(fi.Size())
}

// checkSizeLocked knows two sizes: with all that a failed write left behind,
// and without it. A change that keeps the size is for Verify to find.
func (l *Log) checkSizeLocked(size int64) error {
	switch {
	case size == l.size || size == l.size+l.left:
		return nil
	case size < l.size+l.left:
		return fmt.Errorf("the file was cut from %d bytes to %d: %w", l.size+l.left, size, errForeign)
	default:
		return fmt.Errorf("the file was written by another, %d bytes became %d: %w", l.size+l.left, size, errForeign)
	}
}

// takeBackLocked cuts off what a failed write left behind. It cuts nothing of
// others and never makes the file longer, which would fill it with zeros. It
// does so in a moved file too: that one is then whole.
func (l *Log) takeBackLocked() error {
	fi, err := l.f.Stat()
	if err != nil {
		return err
	}
	if err := l.checkSizeLocked(fi.Size()); err != nil {
		return err
	}
	if fi.Size() > l.size {
		if err := l.truncate(l.size); err != nil {
			return fmt.Errorf("taking back what was written: %w", err)
		}
	}
	l.left = 0
	return nil
}
