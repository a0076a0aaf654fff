package manifest

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const explained = `pay-bill: Pay one bill.
  from m.yaml:2
  a task of this kind lasts at most 10m0s
  its parameters, fixed when it starts:
    limit: number, at most 10000; required
    recipient: string; required
  it may have these tools as far as policy permits, and no others:

bank/send_money
  each grant lasts at most 2m0s
  at most 3 calls in the whole task
  the sum of /amount over the whole task is at most $limit
  its input has exactly:
    amount: number, at most $limit
    recipient: string, exactly $recipient
  constraint: {"additionalProperties":false,"properties":{"amount":{"maximum":{"$param":"limit"},"type":"number"},"recipient":{"const":{"$param":"recipient"},"type":"string"}},"required":["amount","recipient"],"type":"object"}

bank/get_iban
  each grant lasts at most what the broker lets any
  any number of calls
  any input

bank/wire
  each grant is for one call, whose whole input is given when it is asked for
  each grant lasts at most what the broker lets any
  any number of calls
  any input
`

func TestExplain(t *testing.T) {
	m := mustParse(t, payBill)
	got, err := m.Explain(nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(explained, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	got, err = m.Explain(json.RawMessage("{\"limit\": 1.25, \"recipient\": \"a\u202e\U000e0001b\"}"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"limit: number, at most 10000; required; here 1.25\n",
		"is at most 1.25\n",
		`recipient: string, exactly "a\u202e\udb40\udc01b"` + "\n",
		`"const":"a\u202e\udb40\udc01b"`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in:\n%s", want, got)
		}
	}
	if _, err := m.Explain(json.RawMessage(`{}`)); err == nil {
		t.Error("explained with parameters that the manifest would not take")
	}
}

func TestExplainSaysEveryKeyword(t *testing.T) {
	m := mustParse(t, with(
		"properties: {n: {type: integer, minimum: 1, default: 2}}, required: []",
		`- tool: bank/send_money
  input:
    recipient: {pattern: '^(?:[a-z]+)$', minLength: 2, maxLength: 9}
    amount: {exclusiveMinimum: 0, exclusiveMaximum: 5, minimum: 1, maximum: 4}
    urgency: {}
    loud: {const: false}
    copies: {enum: [1, 2]}
    tags: {maxItems: {$param: n}, items: {const: a}}
    rows: {items: {properties: {n: {}}}}
    from: {properties: {iban: {}}}
    secret: {properties: {}}
`))
	got, err := m.Explain(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"n: integer, at least 1; 2 if it is not given\n",
		"recipient: string, of at least 2 characters, of at most 9 characters, matching \"^(?:[a-z]+)$\"\n",
		"amount: number, at least 1, at most 4, above 0, below 5\n",
		"urgency: string, one of [\"high\",\"low\"]\n",
		"loud: boolean, exactly false\n",
		"copies: integer, one of [1,2]\n",
		"tags: list, at most $n items; each: string, exactly \"a\"\n",
		"    rows: list\n      each: an object, which has exactly:\n        n: integer\n",
		"    from: an object, which has exactly:\n      iban: string\n",
		"    secret: an object, which has nothing in it\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in:\n%s", want, got)
		}
	}
}
