package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"go.uber.org/zap"
)

// resume takes up the chain at the end of the file.
func (l *Log) resume() error {
	fi, err := l.f.Stat()
	if err != nil {
		return err
	}
	l.opened = fi
	seq, prev, torn, err := readTail(l.f, fi.Size())
	if err != nil {
		return err
	}
	l.seq, l.synced, l.prev = seq, seq, prev
	l.left = int64(len(torn))
	l.size = fi.Size() - l.left
	if len(torn) > 0 {
		return l.recover(torn)
	}
	// A file that is not in its directory on disk is lost with all its records.
	return syncDir(l.path)
}

// readTail reads backwards from the end: the seq and the hash of the last whole
// line, and the torn line behind it, if any. It refuses what a Log would not
// have left: it might be somebody else's file.
func readTail(f io.ReaderAt, size int64) (seq uint64, prev string, torn []byte, err error) {
	// Enough for a whole line and a torn one, each as long as can be.
	buf := make([]byte, min(size, 2*(MaxLine+1)))
	if _, err := f.ReadAt(buf, size-int64(len(buf))); err != nil && err != io.EOF {
		return 0, "", nil, fmt.Errorf("reading its end: %w", err)
	}
	prev = noPrev
	end := bytes.LastIndexByte(buf, '\n')
	torn = buf[end+1:]
	if end >= 0 {
		start := bytes.LastIndexByte(buf[:end], '\n') + 1
		r, hash, err := parseLine(buf[start:end])
		if err == nil && int64(end+1+len(torn)-start) == size && (r.Seq != 1 || r.Prev != noPrev) {
			err = fmt.Errorf("the only line has seq %d", r.Seq)
		}
		if err != nil {
			return 0, "", nil, fmt.Errorf("its last line is not one of this log (verify it, then move it away): %w", err)
		}
		seq, prev = r.Seq, hash
	}
	// A line that was torn is the start of the line that belongs here. Zeros
	// are what a file system may show of a block that never reached the disk.
	began := bytes.TrimRight(torn, "\x00")
	head := appendHead(nil, seq+1, prev)
	n := min(len(began), len(head))
	if len(torn) > MaxLine || !bytes.Equal(began[:n], head[:n]) {
		return 0, "", nil, errors.New("what follows its last whole line is not a torn line of this log (verify it, then move it away)")
	}
	return seq, prev, torn, nil
}

// recover moves a torn line out of the file. It is in the other file, on disk,
// before it is cut from this one. A crash in between leaves a second copy.
func (l *Log) recover(torn []byte) error {
	name, err := saveTorn(l.path, torn)
	if err != nil {
		return fmt.Errorf("moving its torn last line aside: %w", err)
	}
	if err := l.takeBackLocked(); err != nil {
		return fmt.Errorf("cutting its torn last line: %w", err)
	}
	body := appendBody(nil, &Record{
		Kind: KindRecovered,
		Note: fmt.Sprintf("torn last line of %d bytes, SHA-256 %s, moved to %s", len(torn), hexSum(torn), filepath.Base(name)),
	})
	if err := l.appendLocked(body); err != nil {
		return fmt.Errorf("recording its torn last line: %w", err)
	}
	if err := l.sync(); err != nil {
		return fmt.Errorf("fsync: %w", err)
	}
	l.synced = l.seq
	l.logger.Warn("audit log had a torn last line", zap.String("moved_to", name), zap.Int("bytes", len(torn)))
	return nil
}

func saveTorn(path string, torn []byte) (name string, err error) {
	var f *os.File
	for n := 1; f == nil; n++ {
		name = path + ".torn-" + strconv.Itoa(n)
		f, err = os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return "", err
		}
	}
	_, err = f.Write(torn)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		os.Remove(name) // half a copy of half a line helps nobody; the first is still in the log
		return "", err
	}
	return name, syncDir(name)
}

func syncDir(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
