package identity

import (
	"strings"

	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/token"
)

// ParseAgent reads an agent's id, ALIAS/SUBJECT: who that is without what an
// identity token would say of it. It reads exactly the ids that a Verifier gives
// with some configuration, so that whoever is let in can also be named, in a
// task, in a filter or in a revocation.
func ParseAgent(id string) (agent grants.Principal, ok bool) {
	alias, subject, _ := strings.Cut(id, "/")
	if !aliasPattern.MatchString(alias) || !validSubject(subject) {
		return grants.Principal{}, false
	}
	return grants.Principal{Issuer: alias, Subject: subject}, true
}

// validSubject is the one rule for an agent's name within its alias: what prints
// and has no blank at either end, where nobody sees it. unicode.IsPrint lets no
// other white space pass than the ASCII blank.
func validSubject(s string) bool {
	return token.ValidText(s, maxSubject) && strings.TrimSpace(s) == s
}
