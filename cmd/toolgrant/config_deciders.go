package main

import (
	"fmt"
	"time"

	"github.com/toolgrant/toolgrant/identity"
)

// PDPConfig is an engine that decides in place of our policies.
type PDPConfig struct {
	Engine     string       `yaml:"engine"`      // opa or authzen
	URL        string       `yaml:"url"`         // https, or http on loopback: OPA's data API with the rule's path, or the AuthZEN PDP
	CA         string       `yaml:"ca"`          // PEM file: who vouches for its certificate; default the system's
	BearerFile string       `yaml:"bearer_file"` // a token for it, read anew each time
	Timeout    fineDuration `yaml:"timeout"`     // of one question; default 200ms
	Cache      fineDuration `yaml:"cache"`       // how long an answer may be used again; default 5s
}

// fineDuration may be parts of a second.
type fineDuration time.Duration

func (d fineDuration) String() string { return time.Duration(d).String() }

func (p PDPConfig) on() bool { return p.Engine != "" }

// ShadowConfig is a candidate beside what decides: it is asked the same, and only
// where it would answer otherwise is written down.
type ShadowConfig struct {
	Policies  string `yaml:"policies"`  // its folder; default: no shadow
	Manifests string `yaml:"manifests"` // its folder; default those in force
	File      string `yaml:"file"`      // default shadow.jsonl
}

func (s ShadowConfig) on() bool { return s.Policies != "" }

// AuthZENConfig lets others ask our policies (OpenID AuthZEN Authorization API 1.0).
type AuthZENConfig struct {
	Agents []string `yaml:"agents"` // agent ids, ALIAS/SUBJECT, of who may ask; default nobody
}

// checkDeciders is about what decides, and who else is asked or may ask.
func (c *Config) checkDeciders(fail func(path, format string, args ...any), oneOf func(path, value string, allowed ...string)) {
	switch p := c.PDP; {
	case !p.on() && p != (PDPConfig{}):
		fail("pdp", "needs engine: opa or authzen")
	case p.on():
		oneOf("pdp.engine", p.Engine, "opa", "authzen")
		if err := checkIssuer(p.URL); err != nil {
			fail("pdp.url", "%q %v", p.URL, err)
		}
		// Envoy waits 250 ms for a check.
		if p.Timeout > fineDuration(10*time.Second) {
			fail("pdp.timeout", "%s: write 10s or less; Envoy's printed configuration waits 250ms for a check", p.Timeout)
		}
		if p.Cache > fineDuration(time.Minute) {
			fail("pdp.cache", "%s: write 1m or less", p.Cache)
		}
		if c.Shadow.on() {
			fail("shadow", "compares policies with policies, and pdp decides here")
		}
	}
	if s := c.Shadow; !s.on() && (s.File != "" || s.Manifests != "") {
		fail("shadow", "needs policies: the folder of the candidates")
	}
	for i, a := range c.AuthZEN.Agents {
		if _, ok := identity.ParseAgent(a); !ok {
			fail(fmt.Sprintf("authzen.agents[%d]", i), "%q: write ALIAS/SUBJECT", a)
		}
	}
	written := map[string]string{c.Audit.File: "audit.file"}
	for _, f := range []struct{ path, file string }{{"audit.inputs", c.Audit.Inputs}, {"shadow.file", c.Shadow.File}} {
		if taken := written[f.file]; taken != "" && f.file != "" {
			fail(f.path, "%q is %s: give each a file of its own", f.file, taken)
		}
		written[f.file] = f.path
	}
}
