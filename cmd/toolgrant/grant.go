package main

import (
	stdjson "encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/spf13/cobra"

	"github.com/toolgrant/toolgrant/client"
)

const maxConstraint = 8 << 10 // bytes of one constraint; the broker's own bound

func grantCommand() *cobra.Command {
	var (
		broker           brokerFlags
		ask              client.GrantRequest // but for the tool
		tools, texts     []string
		ttl              ttlFlag
		asJSON, asHeader bool
	)
	cmd := &cobra.Command{
		Use:   "grant --task TASK --tool SERVER/TOOL [--tool ...] [flags]",
		Short: "Buy a token for tools, within a task",
		Long: `Ask the broker for grants, and print the token that carries them.

The token goes to stdout alone; what was granted goes to stderr. One token is
for one server: several tools must be of the same. Asking again while the same
grant lives gives a token for that grant, and refills no budget.

A constraint is a JSON Schema of a small, closed profile over the call's input
(an HTTP tool's input is {"query": …, "body": …}), and must name every part of
it. Each one holds for every tool named.`,
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
  toolgrant grant --task "$task" --tool reports/export --ttl 5m --max-calls 1 --constraint @june.json`,
		Args: operands(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if asJSON && asHeader {
				return usagef("--json and --header: choose one")
			}
			if cmd.Flags().Changed("max-calls") && ask.MaxCalls < 1 {
				return usagef("--max-calls %d: write 1 or more, or leave it out", ask.MaxCalls)
			}
			ask.TTL = ttl.Duration
			asks, err := grantAsks(ask, tools, texts)
			if err != nil {
				return err
			}
			c, err := broker.client(cmd)
			if err != nil {
				return err
			}
			t, err := c.Exchange(cmd.Context(), asks...)
			if err != nil {
				return err
			}
			for _, g := range t.Grants {
				how := "granted"
				if g.Reused {
					how = "granted before"
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s for %q until %s\n", how, g.ID, g.Tool, g.ExpiresAt.Local().Format(time.RFC3339))
			}
			switch {
			case asJSON:
				return printJSON(cmd, t)
			case asHeader:
				return printLine(cmd, "Authorization: Bearer "+t.AccessToken)
			}
			return printLine(cmd, t.AccessToken)
		},
	}
	broker.register(cmd)
	cmd.Flags().StringVar(&ask.Task, "task", "", "`TASK` that the grants are for (required)")
	cmd.Flags().StringArrayVar(&tools, "tool", nil, "`SERVER/TOOL` to grant; may be repeated (required)")
	cmd.Flags().Var(&ttl, "ttl", "length of the window, a `TIME` such as 5m (default 5m, or less where the task or the identity token ends sooner)")
	cmd.Flags().Int64Var(&ask.MaxCalls, "max-calls", 0, "`N` calls at most, of each tool within the task")
	cmd.Flags().StringArrayVar(&texts, "constraint", nil, "JSON `SCHEMA` that a call's input must satisfy, or @FILE with one; may be repeated")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the whole answer as JSON; it holds the token")
	cmd.Flags().BoolVar(&asHeader, "header", false, "print the token as an HTTP header")
	return cmd
}

// grantAsks makes one request for each tool.
func grantAsks(ask client.GrantRequest, tools, constraints []string) ([]client.GrantRequest, error) {
	switch {
	case ask.Task == "":
		return nil, usagef("--task is missing: the id that \"toolgrant task start\" printed")
	case len(tools) == 0:
		return nil, usagef("--tool is missing: SERVER/TOOL, as the catalogue names it")
	}
	for _, text := range constraints {
		c, err := constraint(text)
		if err != nil {
			return nil, err
		}
		ask.Constraints = append(ask.Constraints, c)
	}
	asks := make([]client.GrantRequest, len(tools))
	seen := map[string]bool{}
	for i, tool := range tools {
		server, _, _ := strings.Cut(tool, "/")
		first, _, _ := strings.Cut(tools[0], "/")
		switch {
		case server != first:
			return nil, usagef("--tool %s and --tool %s are of two servers, and a token is for one; ask twice", tools[0], tool)
		case seen[tool]:
			return nil, usagef("--tool %s is there twice", tool)
		}
		seen[tool] = true
		asks[i] = ask
		asks[i].Tool = tool
	}
	return asks, nil
}

// constraint reads one from the command line or from @FILE. Whether it is in
// the profile is the broker's to say; that it is one JSON object is seen here.
func constraint(arg string) (stdjson.RawMessage, error) {
	from, text := "--constraint", []byte(arg)
	if file, ok := strings.CutPrefix(arg, "@"); ok {
		b, err := readFile(file, maxConstraint+1)
		if err != nil {
			return nil, usageError(fmt.Errorf("--constraint: %s: %w", file, err))
		}
		from, text = file, b
	}
	if len(text) > maxConstraint {
		return nil, usageError(fmt.Errorf("%s: longer than %d bytes", from, maxConstraint))
	}
	if from == "--constraint" && !strings.HasPrefix(strings.TrimSpace(arg), "{") {
		return nil, usageError(fmt.Errorf("--constraint %.40q: not a JSON object: write one, or @FILE for one in a file", arg))
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

func revokeCommand() *cobra.Command {
	var broker brokerFlags
	cmd := &cobra.Command{
		Use:   "revoke GRANT",
		Short: "End one grant before its time",
		Long: `End one grant. No call under it passes once this has returned. To end all grants
of a task, end the task.`,
		Example: `  toolgrant revoke g_k3v6w7yz2m4n5p6q7r2s3t4u5v`,
		Args:    operands("GRANT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := broker.client(cmd)
			if err != nil {
				return err
			}
			if err := c.Revoke(cmd.Context(), args[0]); err != nil {
				return err
			}
			return printLine(cmd, args[0]+" revoked")
		},
	}
	broker.register(cmd)
	return cmd
}
