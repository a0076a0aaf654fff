package cedar

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/toolgrant/toolgrant/grants"
)

func advised(id, advice, rest string) string {
	return fmt.Sprintf("@id(%q) @advice(%q) %s;\n", id, advice, long(rest))
}

// A denial tells what the policies say that forbade it, and nothing else does.
func TestAdvice(t *testing.T) {
	const (
		grant    = `forbid (principal, action == T::Action::"grant", resource`
		overflow = ` when { context.ttl * 9223372036854775807 > 0 }`
	)
	a := advised("b-first", "Ask for less.", grant+`)`)
	tail := strings.Repeat("x", maxAdvice)
	for _, tt := range []struct{ name, policies, want, advice string }{
		{"one", permitAll + a, "policy b-first", "Ask for less."},
		{"none that forbids", a, "policy b-first", "Ask for less."},
		{"without advice", permitAll + `@id("x") ` + long(grant) + `);`, "policy x", ""},
		{"another forbids", permitAll + advised("no", "No.", grant+` == T::Tool::"github/get_pr")`), "allow all", ""},
		{"nobody permits", advised("may", "Ask corp/lead.", `permit (principal, action == T::Action::"grant", resource == T::Tool::"github/get_pr")`), "policy", ""},
		{"of a permit", permitAll + advised("may", "Ask corp/lead.", `permit (principal, action, resource)`) + `@id("x") ` + long(grant) + `);`, "policy x", ""},
		{"with an allow", advised("may", "Well done.", `permit (principal, action, resource)`), "allow may", ""},
		{"in the order of ids", permitAll + advised("z", "Last.", grant+`)`) + a + advised("a", "First.", grant+`)`), "policy a b-first z", "First. Ask for less. Last."},
		{"each once", permitAll + advised("z", "First.", grant+`)`) + a + advised("a", "First.", grant+`)`), "policy a b-first z", "First. Ask for less."},
		{"as many as fit", permitAll + advised("a", tail, grant+`)`) + advised("b", tail[1:], grant+`)`) + advised("c", "x", grant+`)`), "policy a b c", tail + " " + tail[1:]},
		{"whole ones alone", permitAll + advised("a", tail, grant+`)`) + advised("b", "y"+tail[1:], grant+`)`) + advised("c", "x", grant+`)`), "policy a b c", tail},
		{"of one that errs", permitAll + advised("errs", "Do not tell.", grant+`)`+overflow), "policy_error errs", ""},
		{"beside one that errs", permitAll + a + `@id("errs") ` + long(grant) + `)` + overflow + ";", "policy_error errs", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := policies(t, tt.policies)
			d := decide(t, s, grantTool("bank/pay"))
			want(t, d, tt.want)
			if d.Advice != tt.advice || len(d.Advice) > maxAdvices {
				t.Errorf("it tells %q", d.Advice)
			}
			doc, err := s.ExampleInput("grant", "bank/pay")
			if err != nil {
				t.Fatal(err)
			}
			if d, err := s.DecideExample(doc); err != nil || d.Advice != tt.advice {
				t.Errorf("written down, it tells %q, %v", d.Advice, err)
			}
		})
	}
	// What no policy decided tells nothing.
	s := bounded(t, advised("no", "No.", `forbid (principal, action, resource)`))
	ds, err := s.Decide(context.Background(), []grants.Input{grantTool("bank/pay"), grantTool("bank/nosuch"), billGrant(t, s, billTask(bill)).Asks(testTask("pay-bill"), now)[0]})
	if err != nil {
		t.Fatal(err)
	}
	for i, told := range []string{"policy No.", "unknown_tool ", "manifest "} {
		if got := ds[i].Reason.String() + " " + ds[i].Advice; got != told {
			t.Errorf("decision %d is %q, not %q", i, got, told)
		}
	}
}

// An advice reaches agents and terminals: it is short, and prints.
func TestAdviceRefused(t *testing.T) {
	load := func(annotations string) error {
		_, err := Load(config(t, "p.cedar", permitAll+"\n@id(\"a\")\n"+annotations+" permit (principal, action, resource);"))
		return err
	}
	for _, tt := range []struct{ annotations, want string }{
		{`@advice("` + strings.Repeat("x", maxAdvice+1) + `")`, "more than 256 bytes"},
		{`@advice("` + strings.Repeat("ä", maxAdvice/2+1) + `")`, "more than 256 bytes"},
		{`@advice("")`, "says nothing"},
		{`@advice`, "says nothing"},
		{`@advice("a\nb")`, "do not print"},
		{`@advice("a\u{1b}[31m")`, "do not print"},
		{`@advice("a\u{202e}b")`, "do not print"},
		{`@advice("a") @advice("b")`, "advice"},
	} {
		if err := load(tt.annotations); err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "p.cedar:") {
			t.Errorf("%s: error %v", tt.annotations, err)
		}
	}
	for _, annotations := range []string{`@advice("` + strings.Repeat("x", maxAdvice) + `")`, `@advice("Ask for 5 – not 6.")`, `@note("a\nb") @other`} {
		if err := load(annotations); err != nil {
			t.Errorf("%s: %v", annotations, err)
		}
	}
}
