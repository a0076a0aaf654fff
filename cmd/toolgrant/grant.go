package main

import (
	stdjson "encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/spf13/cobra"
	"golang.org/x/net/http/httpguts"

	"github.com/toolgrant/toolgrant/client"
)

const maxConstraint = 8 << 10 // bytes of one constraint; the broker's own bound

// grantFlags is what says which grants to ask for; exec has them, too.
type grantFlags struct {
	tools, constraints, sums []string
	ttl                      ttlFlag
	maxCalls                 countFlag
	renew                    string
}

func (g *grantFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&g.tools, "tool", nil, "`SERVER/TOOL` to grant; may be repeated (required)")
	cmd.Flags().Var(&g.ttl, "ttl", "length of the window, a `TIME` such as 5m (default 5m, or less where the task or the identity token ends sooner)")
	cmd.Flags().Var(&g.maxCalls, "max-calls", "`N` calls at most, of each tool within the task")
	cmd.Flags().StringArrayVar(&g.sums, "max-sum", nil, "`POINTER=SUM` at most over all calls, such as /body/amount=1000.50; may be repeated")
	cmd.Flags().StringArrayVar(&g.constraints, "constraint", nil, "JSON `SCHEMA` that a call's input must satisfy, or @FILE with one; may be repeated")
}

// narrows reports whether anything is said about the tools beside their names.
func (g *grantFlags) narrows() bool {
	return g.ttl.Duration > 0 || g.maxCalls.n > 0 || len(g.sums) > 0 || len(g.constraints) > 0
}

// asks makes one request for each tool.
func (g *grantFlags) asks() ([]client.GrantRequest, error) {
	switch {
	case len(g.tools) == 0:
		return nil, usagef("--tool is missing: SERVER/TOOL, as the catalogue names it")
	case g.renew != "" && len(g.tools) > 1:
		return nil, usagef("--renew is for one grant, and so for one --tool; renew each by itself")
	}
	ask := client.GrantRequest{TTL: g.ttl.Duration, MaxCalls: g.maxCalls.n, Renew: g.renew}
	for _, text := range g.constraints {
		c, err := constraint(text)
		if err != nil {
			return nil, err
		}
		ask.Constraints = append(ask.Constraints, c)
	}
	for _, text := range g.sums {
		at := strings.LastIndexByte(text, '=') // a pointer may hold one
		if at < 0 {
			return nil, usagef("--max-sum %s: write POINTER=SUM, such as /body/amount=1000.50", text)
		}
		if _, twice := ask.MaxSums[text[:at]]; twice {
			return nil, usagef("--max-sum: %s is there twice", text[:at])
		}
		if ask.MaxSums == nil {
			ask.MaxSums = map[string]string{}
		}
		ask.MaxSums[text[:at]] = text[at+1:]
	}
	asks := make([]client.GrantRequest, len(g.tools))
	seen := map[string]bool{}
	for i, tool := range g.tools {
		if seen[tool] {
			return nil, usagef("--tool %s is there twice", tool)
		}
		seen[tool] = true
		asks[i] = ask
		asks[i].Tool = tool
	}
	return asks, nil
}

// servers are those of the tools that are asked for, in the order of their
// tokens: as they are first named.
func servers(asks []client.GrantRequest) []string {
	var ids []string
	for _, a := range asks {
		if server, _, _ := strings.Cut(a.Tool, "/"); !slices.Contains(ids, server) {
			ids = append(ids, server)
		}
	}
	return ids
}

func grantCommand() *cobra.Command {
	var (
		broker           brokerFlags
		grant            grantFlags
		req              client.GrantsRequest
		header           headerFlag
		asJSON, asHeader bool
		input            string
	)
	cmd := &cobra.Command{
		Use:   "grant --task TASK --tool SERVER/TOOL [--tool ...] [flags]",
		Short: "Buy a token for tools, within a task",
		Long: `Ask the broker for grants, and print the token that carries them.

The token goes to stdout alone; what was granted goes to stderr. Each server
takes a token of its own: for tools of several servers there is one line
"SERVER TOKEN" for each of these, and all is granted or nothing. Asking again
while the same grant lives gives a token for that grant, and refills no budget.

A constraint is a JSON Schema of a small, closed profile over the call's input
(an HTTP tool's input is {"query": …, "body": …}), and must name every part of
it. Each one holds for every tool named, and so does each budget.

With --input the grant covers one call, of exactly these arguments (but for those
that the catalogue calls volatile): what a person has seen and approved.

A renewal is decided anew, and stands in the old grant's place: with its
constraints and budgets, and never beyond the task's deadline.`,
		Example: `  # A token for five minutes, into a variable.
  token=$(toolgrant grant --task "$task" --tool reports/export --ttl 5m)

  # As a header for curl, which never shows in the list of processes.
  toolgrant grant --task "$task" --tool reports/export --ttl 5m --header |
    curl -H @- --json '{"month":"2026-06"}' 'http://127.0.0.1:10000/export?format=csv'

  # One call, and only for that month as CSV.
  cat > june.json <<'END'
  {"type": "object", "additionalProperties": false, "required": ["query", "body"], "properties": {
    "query": {"type": "object", "additionalProperties": false, "required": ["format"], "properties": {
      "format": {"type": "string", "const": "csv"}}},
    "body": {"type": "object", "additionalProperties": false, "required": ["month"], "properties": {
      "month": {"type": "string", "const": "2026-06"}}}}}
  END
  toolgrant grant --task "$task" --tool reports/export --ttl 5m --max-calls 1 --constraint @june.json

  # Payments of 1000.50 in all, by another agent than the one that asks.
  toolgrant grant --task "$task" --agent corp/pay-bot --tool bank/pay --max-sum /body/amount=1000.50

  # One payment, with these arguments and no others.
  toolgrant grant --task "$task" --agent corp/clerk --tool bank/wire --input '{"iban":"DE1","amount":500}'

  # Five more minutes, in the place of a grant that lives.
  toolgrant grant --task "$task" --tool reports/export --ttl 5m --renew g_k3v6w7yz2m4n5p6q7r2s3t4u5v`,
		Args: operands(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case asJSON && asHeader:
				return usagef("--json and --header: choose one")
			case cmd.Flags().Changed("header-name") && !asHeader:
				return usagef("--header-name goes with --header")
			case req.Task == "":
				return usagef("--task is missing: the id that \"toolgrant task start\" printed")
			}
			asks, err := grant.asks()
			if err != nil {
				return err
			}
			if input != "" {
				if len(asks) > 1 {
					return usagef("--input is for one call of one tool, and so for one --tool")
				}
				if asks[0].Input, err = objectFlag("--input", input); err != nil {
					return err
				}
			}
			if ids := servers(asks); asHeader && len(ids) > 1 {
				return usagef("--header is for one server's token, and these are of %s; ask for each by itself, or use --json", strings.Join(ids, ", "))
			}
			req.Grants = asks
			c, err := broker.client(cmd)
			if err != nil {
				return err
			}
			tokens, err := c.Grant(cmd.Context(), req)
			if err != nil {
				return err
			}
			for _, t := range tokens {
				for _, g := range t.Grants {
					fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s for %q until %s\n", how(g), g.ID, g.Tool, g.ExpiresAt.Local().Format(time.RFC3339))
				}
			}
			switch {
			case asJSON:
				return printJSON(cmd, struct {
					Tokens []client.Token `json:"tokens"`
				}{tokens})
			case asHeader:
				return printLine(cmd, header.line(tokens[0].AccessToken))
			case len(tokens) == 1:
				return printLine(cmd, tokens[0].AccessToken)
			}
			var b strings.Builder
			for _, t := range tokens {
				fmt.Fprintln(&b, t.Server, t.AccessToken)
			}
			return output(cmd, b.String())
		},
	}
	broker.register(cmd)
	cmd.Flags().StringVar(&req.Task, "task", "", "`TASK` that the grants are for (required)")
	cmd.Flags().StringVar(&req.Agent, "agent", "", "`AGENT` (ALIAS/SUBJECT) that will hold them, if policy lets you ask for it (default you)")
	grant.register(cmd)
	cmd.Flags().StringVar(&input, "input", "", "`JSON` object, the input of the one call that the grant is to cover, or @FILE with it")
	cmd.Flags().StringVar(&grant.renew, "renew", "", "live `GRANT` in whose place the new one stands")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the whole answer as JSON; it holds the token")
	cmd.Flags().BoolVar(&asHeader, "header", false, "print the token as an HTTP header")
	header.register(cmd)
	return cmd
}

func how(g client.Grant) string {
	switch {
	case g.Reused:
		return "granted before"
	case g.Renewed != "":
		return "renewed"
	}
	return "granted"
}

// headerFlag is the header in which a tool takes its credential.
type headerFlag struct{ name string }

func (h *headerFlag) register(cmd *cobra.Command) {
	h.name = "Authorization"
	cmd.Flags().Var(h, "header-name", "`NAME` of the header that takes the token, where the catalogue names another than Authorization")
}

func (h *headerFlag) Set(s string) error {
	if !httpguts.ValidHeaderFieldName(s) {
		return errors.New("write the name of an HTTP header")
	}
	h.name = s
	return nil
}

func (h *headerFlag) Type() string   { return "name" }
func (h *headerFlag) String() string { return h.name }

// value is what stands in the header: Authorization has a scheme (RFC 6750,
// Section 2.1), a header of the tool's own holds the token alone.
func (h *headerFlag) value(token string) string {
	if strings.EqualFold(h.name, "Authorization") {
		return "Bearer " + token
	}
	return token
}

func (h *headerFlag) line(token string) string { return h.name + ": " + h.value(token) }

// constraint reads one from the command line or from @FILE. Whether it is in
// the profile is the broker's to say; that it is one JSON object is seen here.
func constraint(arg string) (stdjson.RawMessage, error) { return objectFlag("--constraint", arg) }

// objectFlag reads a JSON object that a flag holds, or @FILE.
func objectFlag(flag, arg string) (stdjson.RawMessage, error) {
	from, text := flag, []byte(arg)
	if file, ok := strings.CutPrefix(arg, "@"); ok {
		b, err := readFile(file, maxConstraint+1)
		if err != nil {
			return nil, usageError(fmt.Errorf("%s: %s: %w", flag, file, err))
		}
		from, text = file, b
	}
	if len(text) > maxConstraint {
		return nil, usageError(fmt.Errorf("%s: longer than %d bytes", from, maxConstraint))
	}
	if from == flag && !strings.HasPrefix(strings.TrimSpace(arg), "{") {
		return nil, usageError(fmt.Errorf("%s %.40q: not a JSON object: write one, or @FILE for one in a file", flag, arg))
	}
	var object map[string]any
	if err := json.Unmarshal(text, &object); err != nil {
		return nil, usageError(fmt.Errorf("%s: not a JSON object: %w", from, err))
	}
	if object == nil { // null
		return nil, usageError(errors.New(from + ": not a JSON object: null"))
	}
	return text, nil
}
