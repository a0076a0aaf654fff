package pdp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/toolgrant/toolgrant/strictjson"
)

// opa asks by the Data API (https://www.openpolicyagent.org/docs/rest-api, "Get
// a Document (with Input)").
type opa struct {
	client *client
	target string
}

func newOPA(c *client, u *url.URL) (*opa, error) {
	if _, path, ok := strings.Cut(u.Path, "/v1/data/"); !ok || path == "" {
		return nil, errors.New(`URL: name the document that decides, such as https://HOST/v1/data/toolgrant/decide`)
	}
	return &opa{c, u.String() + "?provenance=true"}, nil
}

type opaInput struct {
	Questions []opaQuestion `json:"questions"`
}

// opaQuestion has its place in the batch in it, and so has the answer. A policy
// that makes a set of its answers by mistake gives them sorted, each to another
// question.
type opaQuestion struct {
	N int `json:"n"`
	*document
}

func (o *opa) ask(ctx context.Context, docs []*document) ([]answer, error) {
	in := opaInput{Questions: make([]opaQuestion, len(docs))}
	for i, d := range docs {
		in.Questions[i] = opaQuestion{i, d}
	}
	body, err := o.client.post(ctx, o.target, map[string]any{"input": in})
	if err != nil {
		return nil, err
	}
	out, err := readOPA(body, len(docs))
	if err != nil {
		return nil, fmt.Errorf("answer of OPA: %w", err)
	}
	return out, nil
}

type opaAnswer struct {
	Result     jsontext.Value `json:"result"`
	Provenance struct {
		Bundles map[string]struct {
			Revision string `json:"revision"`
		} `json:"bundles"`
	} `json:"provenance"`
}

type opaResult struct {
	Answers  []opaDecision `json:"answers"`
	Revision string        `json:"revision"`
}

type opaDecision struct {
	N     *int  `json:"n"`
	Allow *bool `json:"allow"`
	said
}

// readOPA reads the answer to n questions. The result is a policy's own, so that
// a member that is not known there is a mistake; what stands beside it is OPA's.
func readOPA(body []byte, n int) ([]answer, error) {
	var all opaAnswer
	if err := strictjson.UnmarshalOpen(body, strictjson.Limits{}, &all); err != nil {
		return nil, err
	}
	if all.Result == nil {
		return nil, errors.New("there is no result: the document is undefined")
	}
	var result opaResult
	if err := strictjson.Unmarshal(all.Result, strictjson.Limits{}, &result); err != nil {
		return nil, fmt.Errorf("result: %w", err)
	}
	if len(result.Answers) != n {
		return nil, fmt.Errorf("%d answers to %d questions", len(result.Answers), n)
	}
	revision, err := all.revision(result.Revision)
	if err != nil {
		return nil, err
	}
	out := make([]answer, n)
	for i, d := range result.Answers {
		if d.N == nil || *d.N != i || d.Allow == nil {
			return nil, fmt.Errorf(`answer %d: must have "n": %d and "allow", true or false`, i, i)
		}
		if out[i], err = d.said.answer(*d.Allow); err != nil {
			return nil, fmt.Errorf("answer %d: %w", i, err)
		}
		out[i].revision = revision
	}
	return out, nil
}

// revision is what the policy says of its revision and OPA of its bundles'; "":
// nothing, or not of all bundles.
func (a *opaAnswer) revision(own string) (string, error) {
	var text strings.Builder
	if own != "" {
		fmt.Fprintf(&text, "%q", own)
	}
	for _, name := range slices.Sorted(maps.Keys(a.Provenance.Bundles)) {
		r := a.Provenance.Bundles[name].Revision
		if r == "" && own == "" {
			return "", nil
		}
		fmt.Fprintf(&text, " %q=%q", name, r)
	}
	return text.String(), checkText("revision", text.String(), maxRevision)
}
