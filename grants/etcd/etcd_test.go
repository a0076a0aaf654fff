package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/grants/etcd"
	"github.com/toolgrant/toolgrant/grants/grantstest"
)

func TestStore(t *testing.T) {
	client := serve(t)
	grantstest.Run(t, func(t *testing.T) grants.Store { return open(t, client, grants.NewID("test_")) })
}

// Two nodes, each with a Store of its own: half of the calls go to the one,
// half to the other.
func TestStoreTwoNodes(t *testing.T) {
	client := serve(t)
	grantstest.Run(t, func(t *testing.T) grants.Store {
		prefix := grants.NewID("test_")
		n := &nodes{Store: open(t, client, prefix), turn: make(chan grants.Store, 2)}
		n.turn <- n.Store
		n.turn <- open(t, client, prefix)
		return n
	})
}

type nodes struct {
	grants.Store // watches
	turn         chan grants.Store
}

func (n *nodes) next() grants.Store {
	s := <-n.turn
	n.turn <- s
	return s
}

func (n *nodes) Start(ctx context.Context, t grants.Task) (grants.Rev, grants.Reason, error) {
	return n.next().Start(ctx, t)
}

func (n *nodes) Issue(ctx context.Context, b []grants.Grant) (grants.Rev, grants.Reason, error) {
	return n.next().Issue(ctx, b)
}

func (n *nodes) Fence(ctx context.Context, f grants.Fence) (grants.Rev, error) {
	return n.next().Fence(ctx, f)
}

func (n *nodes) Draw(ctx context.Context, budget string, want int64) (int64, error) {
	return n.next().Draw(ctx, budget, want)
}

func TestWatchCompacted(t *testing.T) {
	client := serve(t)
	s := open(t, client, "test")
	old, last, now := start(t, s), start(t, s), start(t, s)
	if _, err := client.Compact(t.Context(), int64(now.N)); err != nil {
		t.Fatal(err)
	}
	for rev, want := range map[grants.Rev]error{old: grants.ErrResync, last: nil, now: nil, {}: nil} {
		for _, err := range s.Watch(t.Context(), rev, nil) {
			if !errors.Is(err, want) {
				t.Errorf("from %v: %v; want %v", rev, err, want)
			}
			break
		}
	}
}

// Whoever restores a copy raises the epoch; whoever still holds the old one
// can neither write nor follow.
func TestEpochRaised(t *testing.T) {
	client := serve(t)
	s := open(t, client, "test")
	rev := start(t, s)
	raised := false
	for _, err := range s.Watch(t.Context(), grants.Rev{}, nil) {
		if err != nil {
			if !raised || !errors.Is(err, grants.ErrResync) {
				t.Errorf("watch: %v (epoch raised: %v); want %v", err, raised, grants.ErrResync)
			}
			break
		}
		if raised {
			continue // a heartbeat that was under way
		}
		if _, err := client.Put(t.Context(), "test/epoch", fmt.Sprint(rev.Epoch+1)); err != nil {
			t.Fatal(err)
		}
		raised = true
	}
	if rev, why, err := s.Start(t.Context(), task()); err == nil {
		t.Errorf("start: %v, %v; want an error", rev, why)
	}
	for _, err := range s.Watch(t.Context(), rev, nil) {
		if !errors.Is(err, grants.ErrResync) {
			t.Errorf("watch anew: %v; want %v", err, grants.ErrResync)
		}
		break
	}
	again := start(t, open(t, client, "test"))
	if again.Epoch != rev.Epoch+1 {
		t.Errorf("opened anew: revision %v; want epoch %d", again, rev.Epoch+1)
	}
}

// A beat of another Watch says nothing about this one's view.
func TestBeatOfAnother(t *testing.T) {
	client := serve(t)
	s := open(t, client, "test")
	var other int64
	for ev, err := range s.Watch(t.Context(), grants.Rev{}, nil) {
		if err != nil {
			t.Fatal(err)
		}
		if other != 0 && ev.Rev.N >= uint64(other) {
			if ev.Rev.N == uint64(other) {
				t.Error("another's beat was passed on")
			}
			return
		}
		if other == 0 {
			resp, err := client.Put(t.Context(), "test/beat", fmt.Sprintf("%s/%d", grants.NewID("w_"), math.MaxInt32))
			if err != nil {
				t.Fatal(err)
			}
			other = resp.Header.Revision
		}
	}
}

func task() grants.Task {
	return grants.Task{ID: grants.NewID(grants.TaskPrefix), Deadline: time.Now().Add(time.Hour)}
}

func start(t *testing.T, s grants.Store) grants.Rev {
	t.Helper()
	rev, why, err := s.Start(t.Context(), task())
	if err != nil || why != grants.None {
		t.Fatalf("start: %v, %v", why, err)
	}
	return rev
}

func open(t *testing.T, client *clientv3.Client, prefix string) *etcd.Store {
	t.Helper()
	s, err := etcd.New(client, prefix)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// serve runs one member of etcd on free ports of the loopback interface.
func serve(t *testing.T) *clientv3.Client {
	t.Helper()
	c := embed.NewConfig()
	c.Dir = t.TempDir()
	c.LogLevel = "fatal"
	c.UnsafeNoFsync = true // nothing here outlives the test
	client, peer := freeURL(t), freeURL(t)
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	server, err := embed.StartEtcd(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	select {
	case <-server.Server.ReadyNotify():
	case err := <-server.Err():
		t.Fatal(err)
	case <-time.After(30 * time.Second):
		t.Fatal("etcd is not ready after 30 s")
	}
	cl, err := clientv3.New(clientv3.Config{Endpoints: []string{client.String()}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cl.Close() })
	return cl
}

func freeURL(t *testing.T) url.URL {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return url.URL{Scheme: "http", Host: l.Addr().String()}
}
