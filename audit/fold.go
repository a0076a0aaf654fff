package audit

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/toolgrant/toolgrant/grants"
)

// What anyone on the network can cause without an identity must not fill the
// disk. So past a few a second such denials are counted, second by second.
const (
	defaultFoldAfter = 10
	foldWindow       = time.Second

	// maxSources bounds both the sources that are told apart in a window and the
	// counts that are kept; what comes beyond shares the source "…". So a window
	// costs at most maxSources*FoldAfter lines and the counts, whoever sends.
	maxSources = 1024
	manySource = cutMark

	unfoldLines = 64 // in one write
)

// folds counts the denials of one window. Log.mu guards it.
type folds struct {
	after   int
	began   time.Time         // of the window, with its monotonic reading
	written map[string]int    // source -> denials of this window written one by one
	counted map[foldKey]*fold // what one record will stand for; kept until it is written
}

type foldKey struct {
	source, kind string
	reason       grants.Reason
}

// fold is the record that stands for Count denials; what they do not have in
// common is empty in it, but that ID and Time are the first one's.
type fold struct {
	Record
	last time.Time
}

func newFolds(after int) folds {
	f := folds{after: after}
	f.reset(time.Time{})
	return f
}

func (f *folds) reset(at time.Time) {
	f.began, f.written, f.counted = at, map[string]int{}, map[foldKey]*fold{}
}

// foldable reports whether the records of one request are denials, and nobody's
// who was verified. A verified caller can be held to its own limits.
func foldable(rs []Record) bool {
	for i := range rs {
		r := &rs[i]
		if r.Outcome != Deny || r.Agent != "" || r.Actor != "" || r.Requester != "" || r.Client != "" || r.Source != rs[0].Source {
			return false
		}
	}
	return true
}

// foldSource is what a source is counted as: an IPv6 address as its /64, for
// who has one address there has them all.
func foldSource(source string) string {
	addr, err := netip.ParseAddr(source)
	if err != nil {
		return source[:min(len(source), MaxWord)]
	}
	if addr = addr.Unmap(); addr.Is4() {
		return addr.String()
	}
	return netip.PrefixFrom(addr.WithZone(""), 64).Masked().String()
}

// fold counts the denials if their source has had its share of lines in this
// window; false: write them one by one. A log that cannot be written refuses to
// count, too.
func (l *Log) fold(rs []Record) (folded bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if err := l.unfoldLocked(now, false); err != nil {
		return false, l.refuseLocked(rs, err)
	}
	source := foldSource(rs[0].Source)
	if l.folds.admit(source, len(rs)) {
		return false, nil
	}
	if err := l.readyLocked(); err != nil {
		return false, l.refuseLocked(rs, err)
	}
	for i := range rs {
		l.folds.count(source, &rs[i], now)
	}
	return true, nil
}

// admit reports whether the source may have n more lines.
func (f *folds) admit(source string, n int) bool {
	if _, ok := f.written[source]; !ok && len(f.written) >= maxSources {
		source = manySource
	}
	if f.written[source]+n > f.after {
		return false
	}
	f.written[source] += n
	return true
}

func (f *folds) count(source string, r *Record, now time.Time) {
	at := r.Time
	if at.IsZero() {
		at = now
	}
	key := foldKey{source, r.Kind, r.Reason}
	c := f.counted[key]
	if c == nil && len(f.counted) >= maxSources {
		key.source = manySource // kinds and reasons are closed sets
		c = f.counted[key]
	}
	if c == nil {
		c = &fold{last: at, Record: Record{
			Time: at, ID: r.ID, Kind: r.Kind, Tool: r.Tool, Source: key.source, Outcome: Deny, Reason: r.Reason, Status: r.Status,
		}}
		f.counted[key] = c
	}
	c.Count++
	if c.Tool != r.Tool {
		c.Tool = ""
	}
	if c.Status != r.Status {
		c.Status = 0
	}
	if at.After(c.last) {
		c.last = at
	}
}

func (f *folds) sum() (n int64) {
	for _, c := range f.counted {
		n += c.Count
	}
	return n
}

// unfoldLocked ends the window if its time is over, or at once if closing:
// what was counted is written. A window whose counts cannot be written goes on,
// so that none is lost.
func (l *Log) unfoldLocked(now time.Time, closing bool) error {
	f := &l.folds
	if !closing && now.Sub(f.began) < foldWindow {
		return nil
	}
	if len(f.counted) > 0 {
		if err := l.readyLocked(); err != nil {
			return err
		}
		if err := l.writeFoldsLocked(); err != nil {
			return err
		}
	}
	f.reset(now)
	return nil
}

func (l *Log) writeFoldsLocked() error {
	keys := make([]foldKey, 0, len(l.folds.counted))
	for key := range l.folds.counted {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b foldKey) int {
		return l.folds.counted[a].Time.Compare(l.folds.counted[b].Time)
	})
	for some := range slices.Chunk(keys, unfoldLines) {
		rs := make([]Record, len(some))
		for i, key := range some {
			c := l.folds.counted[key]
			rs[i] = c.Record
			rs[i].Note = fmt.Sprintf("folded: denials without a verified identity, from %s to %s, the first %s",
				c.Time.UTC().Format(timeLayout), c.last.UTC().Format(timeLayout), c.ID)
		}
		if err := l.appendLocked(appendBodies(nil, rs)); err != nil {
			return err
		}
		for _, key := range some {
			delete(l.folds.counted, key)
		}
	}
	return nil
}
