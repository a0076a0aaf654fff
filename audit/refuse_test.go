package audit

import (
	"fmt"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/toolgrant/toolgrant/grants"
)

// heard is a log whose lines for people are kept.
func heard(t testing.TB, path string) (*Log, *observer.ObservedLogs) {
	t.Helper()
	core, lines := observer.New(zapcore.InfoLevel)
	l, err := Open(Config{File: path, Fsync: FsyncNever, Key: testKey, Logger: zap.New(core)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, lines
}

// While nothing can be recorded, calls write no line each, whoever makes them:
// one at once, one every ten seconds, and in all of them each refused decision.
func TestRefusalsAreToldRarely(t *testing.T) {
	const refused = "decisions could not be recorded, and are denials"
	for name, record := range map[string]func(i int) Record{
		"strangers": func(i int) Record { return stranger(i, fmt.Sprint("192.0.2.", i%250)) },
		"verified":  testRecord,
	} {
		synctest.Test(t, func(t *testing.T) {
			path := testPath(t)
			l, lines := heard(t, path)
			d := (&badDisk{room: 0}).under(l)
			call := func(from, to int) {
				for i := from; i < to; i++ {
					if l.Append(record(i)) == nil {
						t.Fatalf("%s: recorded", name)
					}
					time.Sleep(10 * time.Millisecond) // of the bubble
				}
			}
			call(0, 2000)
			mustTell(t, lines,
				map[string]any{"level": "error", "message": "audit log cannot be written: every decision is now a denial"},
				map[string]any{"level": "error", "message": refused, "count": 1, "decisions": ids(0, 1)},
				map[string]any{"level": "error", "message": refused, "count": 1000, "decisions": ids(985, 1001)})
			l.tick() // 20 s after the first
			mustTell(t, lines, map[string]any{"message": refused, "count": 999, "decisions": ids(1984, 2000)})

			// In another way, and never back.
			call(2000, 2005)
			if err := os.Rename(path, path+".1"); err != nil {
				t.Fatal(err)
			}
			call(2005, 2010)
			mustTell(t, lines)
			if err := os.Rename(path+".1", path); err != nil {
				t.Fatal(err)
			}

			// What is told when it goes on is told once; the next failure is news.
			d.room = -1
			l.tick()
			mustTell(t, lines, map[string]any{"level": "info", "message": "audit log is written again", "refused": 2010})
			time.Sleep(time.Minute)
			l.tick()
			mustTell(t, lines)
			d.room = 0
			call(3000, 3001)
			mustTell(t, lines, map[string]any{"message": "audit log cannot be written: every decision is now a denial"}, map[string]any{"message": refused, "count": 1})
			call(3001, 3003)
			l.Close()
			mustTell(t, lines, map[string]any{"message": refused, "count": 2, "decisions": ids(3001, 3003)})
		})
	}
}

// A record that contradicts itself is a door's mistake, and no state of the log:
// that it was refused is told all the same.
func TestContradictionsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, lines := heard(t, testPath(t))
		for i := range 100 {
			r := testRecord(i)
			r.Reason = grants.None
			if l.Append(r) == nil {
				t.Fatal("recorded")
			}
			mustAppend(t, l, 1)
		}
		if l.Healthy() != nil {
			t.Error("one record made the log unhealthy")
		}
		mustTell(t, lines, map[string]any{"level": "error", "count": 1, "error": "record 1 of 1: outcome deny with reason none"})
		time.Sleep(refuseEvery) // of the bubble
		l.tick()
		mustTell(t, lines, map[string]any{"count": 99, "decisions": ids(84, 100)})
	})
}
