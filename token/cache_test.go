package token

import (
	"encoding/binary"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/toolgrant/toolgrant/grants"
)

// numbered are digests that all fall into one shard.
func numbered(i int) (d grants.Digest) {
	binary.BigEndian.PutUint32(d[1:], uint32(i))
	return d
}

func TestCacheIsBounded(t *testing.T) {
	for name, bytes := range map[string]int{"small": 1, "large": generationBytes / 4} {
		var c Cache[int]
		if _, ok := c.Get(numbered(0)); ok {
			t.Fatal("an empty cache knows something")
		}
		const used = 1 << 20
		c.Put(numbered(used), bytes, used)
		for i := range 10 * generationEntries {
			c.Put(numbered(i), bytes, i)
			if got, ok := c.Get(numbered(i)); !ok || got != i {
				t.Fatalf("%s: %d: %d, %v", name, i, got, ok)
			}
			// What is used stays, however much comes by.
			if got, ok := c.Get(numbered(used)); !ok || got != used {
				t.Fatalf("%s: forgotten after %d: %d, %v", name, i, got, ok)
			}
		}
		s := &c.shards[0]
		if n := len(s.young) + len(s.old); n > 2*generationEntries || s.bytes > generationBytes || s.bytes != len(s.young)*bytes {
			t.Errorf("%s: %d entries, %d bytes of text in the young generation of %d", name, n, s.bytes, len(s.young))
		}
		if _, ok := c.Get(numbered(0)); ok {
			t.Errorf("%s: nothing was forgotten", name)
		}
		for range 3 { // the same again is not more
			c.Put(numbered(used), bytes, used)
		}
		if s.bytes != len(s.young)*bytes {
			t.Errorf("%s: put anew: %d bytes for %d entries", name, s.bytes, len(s.young))
		}
	}
}

func TestCacheConcurrently(t *testing.T) {
	var c Cache[int]
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 2000 {
				text := TextDigest(fmt.Sprint(i))
				c.Put(text, 100, i)
				if got, ok := c.Get(text); ok && got != i {
					t.Errorf("%d: %d", i, got)
				}
			}
		})
	}
	wg.Wait()
}

// A tampered token does not get the verdict of the genuine one that is known.
func TestKnownTokenTampered(t *testing.T) {
	bothAlgs(t, func(t *testing.T, f *fixture) {
		good := f.sign(t, toJSON(t, f.header), f.payload)
		parts := strings.Split(good, ".")
		other := encode(f.payloadWith(t, "sub", `"corp/root"`))
		mallory := f.sign(t, toJSON(t, f.header), f.payloadWith(t, "depth", "2"))
		for range 2 {
			f.want(t, "genuine", good, grants.None)
			f.want(t, "another payload, its signature", parts[0]+"."+other+"."+parts[2], grants.BadCredential)
			f.want(t, "its payload, another signature", parts[0]+"."+parts[1]+mallory[strings.LastIndex(mallory, "."):], grants.BadCredential)
			f.want(t, "another header", encode(f.headerWith(t, "typ", "JWT"))+"."+parts[1]+"."+parts[2], grants.BadCredential)
		}
		if n := known(f.verifier); n != 1 {
			t.Errorf("%d texts are known; only the one that verifies may be", n)
		}
	})
}

// known counts the texts whose verdict is remembered.
func known(v *Verifier) (n int) {
	for i := range v.known.shards {
		n += len(v.known.shards[i].young) + len(v.known.shards[i].old)
	}
	return n
}

// Time and place are judged at every use.
func TestKnownTokenElsewhere(t *testing.T) {
	f := newFixture(t, EdDSA)
	good := f.sign(t, toJSON(t, f.header), f.payload)
	end := testNow.Add(time.Minute)
	for _, c := range []struct {
		name, audience string
		now            time.Time
		want           grants.Reason
	}{
		{"here and now", testAudience, testNow, grants.None},
		{"other server", "https://other.internal", testNow, grants.BadCredential},
		{"before its time", testAudience, testNow.Add(-6 * time.Second), grants.BadCredential},
		{"just before its end", testAudience, end.Add(-1), grants.None},
		{"at its end", testAudience, end, grants.ExpiredToken},
		{"and earlier again", testAudience, testNow, grants.None},
	} {
		if _, reason := f.verifier.Verify(good, c.audience, c.now); reason != c.want {
			t.Errorf("%s: %v, want %v", c.name, reason, c.want)
		}
	}
	if known(f.verifier) != 1 {
		t.Error("it was not known, so that nothing was tested")
	}
}

// What one caller does with its claims is not what the next one gets.
func TestKnownClaimsAreNotShared(t *testing.T) {
	f := newFixture(t, EdDSA)
	good := f.sign(t, toJSON(t, f.header), f.payload)
	for range 3 {
		c, reason := f.verifier.Verify(good, testAudience, testNow)
		if reason != grants.None || c.Details[0].Tool != "reports/export" || c.Act.Subject != "agent-8" || c.Act.Act.Subject != "agent-7" {
			t.Fatalf("%v: %+v", reason, c)
		}
		c.Details[0].Tool, c.Act.Subject, c.Act.Act.Subject = "x/y", "root", "root"
	}
}
