package surface

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/toolgrant/toolgrant/authz/mcp"
	"github.com/toolgrant/toolgrant/catalog"
)

func idle() *Surface {
	return New(Config{Catalog: &catalog.Catalog{}, Seal: mcp.NewSeal(), Logger: zap.NewNop()})
}

func TestTheSocketIsItsGroups(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	s, err := idle().Open(t.Context(), "unix://"+path)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Addr().String(); got != path {
		t.Errorf("it listens on %s, want %s", got, path)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != fs0660 {
		t.Errorf("mode %v, %v, want %v", info.Mode(), err, fs0660)
	}
	if _, err := idle().Open(t.Context(), "unix://"+path); err == nil || !strings.Contains(err.Error(), "another process listens") {
		t.Errorf("a socket in use: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	s, err = idle().Open(t.Context(), "unix://"+path) // what the first left is replaced
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}

const fs0660 = os.ModeSocket | 0o660

func TestWhereItDoesNotListen(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]string{
		"unix://" + file:         "is no socket",
		"unix://relative":        "absolute",
		"unix:///nowhere/x.sock": "no such file",
		"0.0.0.0:0":              "loopback only",
		"[::]:0":                 "loopback only",
		":0":                     "loopback only",
		"192.0.2.1:0":            "loopback only",
		"example.com:0":          "loopback only",
		"9000":                   "host:port",
		"":                       "host:port",
	} {
		if s, err := idle().Open(t.Context(), address); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", address, err, want)
			if err == nil {
				s.Close()
			}
		}
	}
	if b, err := os.ReadFile(file); string(b) != "mine" {
		t.Errorf("the file is now %q, %v", b, err)
	}
	s, err := idle().Open(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Addr().(*net.TCPAddr); !ok {
		t.Errorf("it listens on %v", s.Addr())
	}
	s.Close()
}

// What is under way when Run is told to end is finished, and nothing new begins.
func TestRunFinishesWhatIsUnderWay(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	w := newWorld(t, Config{}, func(w http.ResponseWriter, _ *http.Request) {
		close(arrived)
		<-release
		_, _ = io.WriteString(w, "done")
	})
	type result struct {
		body string
		err  error
	}
	got := make(chan result, 1)
	r := w.request(w.pass(mcp.Pass{}), "{}")
	go func() {
		res, err := w.client.Do(r)
		if err != nil {
			got <- result{err: err}
			return
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		got <- result{string(b), err}
	}()
	<-arrived
	w.stop()
	eventually(t, "it listens no more", func() bool {
		c, err := net.Dial("unix", w.server.Addr().String())
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	close(release)
	if r := <-got; r.body != "done" || r.err != nil {
		t.Errorf("the client got %q, %v", r.body, r.err)
	}
}

// What does not end by itself is cut, and has ended when Close returns.
func TestCloseCuts(t *testing.T) {
	cancelled := make(chan struct{}, 2)
	w := newWorld(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		cancelled <- struct{}{}
	})
	// One client says more after its message: then net/http does not notice that
	// the connection is closed.
	c, err := net.Dial("unix", w.server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: a\r\n%s: %s\r\nContent-Length: 2\r\n\r\n{}", mcp.PassHeader, w.pass(mcp.Pass{})); err != nil {
		t.Fatal(err)
	}
	if res, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || res.StatusCode != 200 {
		t.Fatalf("%v", err)
	}
	if _, err := io.WriteString(c, "POST"); err != nil {
		t.Fatal(err)
	}
	res := w.open(w.request(w.pass(mcp.Pass{}), "{}"))
	began := time.Now()
	if err := w.server.Close(); err != nil {
		t.Error(err)
	}
	if n := w.underWay(); n != 0 {
		t.Errorf("%d are under way", n)
	}
	if took := time.Since(began); took > patience {
		t.Errorf("it took %v", took)
	}
	<-cancelled
	<-cancelled
	if _, err := io.ReadAll(res.Body); err == nil {
		t.Error("a cut answer looks like a whole one")
	}
	if _, err := w.client.Do(w.request(w.pass(mcp.Pass{}), "{}")); err == nil {
		t.Error("it still answers")
	}
}
