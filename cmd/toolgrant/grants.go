package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/spf13/cobra"

	"github.com/toolgrant/toolgrant/client"
)

func grantsCommand() *cobra.Command {
	var (
		broker        brokerFlags
		filter        client.GrantFilter
		watch, asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "grants [--task TASK] [--agent AGENT] [--tool SERVER/TOOL] [--watch]",
		Short: "List the live grants that you may see",
		Long: `List live grants: your own, those that you asked for, those of your tasks, and
those that policy lets you revoke. At most 1000; filters narrow the list.

--watch asks again each second: on a terminal as a table that ^C ends, elsewhere
as one line of JSON for each grant that came to live or is gone:
{"at": TIME, "change": "live" or "gone", "grant": {…}}.
Each of these looks is a request like any other: a record a second in the
broker's audit log, and a part of what you may ask of it in a second.`,
		Example: `  toolgrant grants
  toolgrant grants --agent corp/ci-1 --watch
  toolgrant grants --watch --json | jq -r 'select(.change == "gone").grant.grant_id'`,
		Args: operands(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := broker.client(cmd)
			if err != nil {
				return err
			}
			list := func(ctx context.Context) ([]client.LiveGrant, bool, error) { return c.Grants(ctx, filter) }
			if watch {
				w := watcher{list: list, out: cmd.OutOrStdout(), errs: cmd.ErrOrStderr(), each: time.Second}
				if !asJSON {
					w.size = func() (int, int, bool) { return terminalSize(w.out) }
				}
				return w.run(cmd.Context())
			}
			grants, more, err := list(cmd.Context())
			if err != nil {
				return err
			}
			if more {
				fmt.Fprintln(cmd.ErrOrStderr(), "there are more than these: narrow the list by --task, --agent or --tool")
			}
			if asJSON {
				return printJSON(cmd, struct {
					Grants []client.LiveGrant `json:"grants"`
					More   bool               `json:"more"`
				}{grants, more})
			}
			return output(cmd, grantsTable(grants))
		},
	}
	broker.register(cmd)
	cmd.Flags().StringVar(&filter.Task, "task", "", "only grants of this `TASK`")
	cmd.Flags().StringVar(&filter.Agent, "agent", "", "only grants that this `AGENT` (ALIAS/SUBJECT) holds")
	cmd.Flags().StringVar(&filter.Tool, "tool", "", "only grants of this `SERVER/TOOL`")
	cmd.Flags().BoolVar(&watch, "watch", false, "go on, and show what changes")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// grantsTable shows grants, the one that ends first on top.
func grantsTable(grants []client.LiveGrant) string {
	grants = slices.Clone(grants)
	slices.SortFunc(grants, func(a, b client.LiveGrant) int {
		return cmp.Or(a.ExpiresAt.Compare(b.ExpiresAt), cmp.Compare(a.ID, b.ID))
	})
	rows := make([][]string, len(grants))
	for i, g := range grants {
		rows[i] = []string{g.ID, g.Agent, g.Tool, g.Task, g.Kind, inWords(time.Duration(g.TTL) * time.Second), maxCalls(g), maxSums(g)}
	}
	return table(rows, "GRANT", "AGENT", "TOOL", "TASK", "KIND", "LEFT", "MAX CALLS", "MAX SUMS")
}

// maxCalls and maxSums are what a grant's budgets allow in all; what of it is
// spent is known to the nodes alone.
func maxCalls(g client.LiveGrant) string {
	if g.MaxCalls == 0 {
		return ""
	}
	return strconv.FormatInt(g.MaxCalls, 10)
}

func maxSums(g client.LiveGrant) string {
	var sums []string
	for pointer, sum := range g.MaxSum {
		sums = append(sums, pointer+"="+sum)
	}
	slices.Sort(sums)
	return strings.Join(sums, " ")
}

// watcher shows live grants as they change, until its context ends.
type watcher struct {
	list      func(context.Context) ([]client.LiveGrant, bool, error)
	out, errs io.Writer
	each      time.Duration               // between two looks
	size      func() (int, int, bool)     // of the terminal; nil, or false: there is none
	known     map[string]client.LiveGrant // grant id -> as it was last seen
	failing   bool
}

// run ends without an error when ctx does: that is how a watch ends. A broker
// that says no, or that cannot be reached at the first look, ends it, too; one
// that is away later is waited for.
func (w *watcher) run(ctx context.Context) error {
	grants, more, err := w.list(ctx)
	if err != nil {
		return err
	}
	show := w.lines
	if w.size != nil {
		if _, _, ok := w.size(); ok {
			show = w.screen
			// The alternate screen, without a cursor; at the end the terminal is
			// as it was.
			_, _ = io.WriteString(w.out, "\x1b[?1049h\x1b[?25l")
			defer func() { _, _ = io.WriteString(w.out, "\x1b[?25h\x1b[?1049l") }()
		}
	}
	tick := time.NewTicker(w.each)
	defer tick.Stop()
	for {
		if shown := show(grants, more, err); shown != nil {
			return fmt.Errorf("writing the result: %w", shown)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		var now []client.LiveGrant
		if now, more, err = w.list(ctx); err == nil {
			grants = now
		}
		var answer *client.Error
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &answer) && answer.Denied() && answer.Status != 429:
			return err
		}
	}
}

// lines prints a line of JSON for each change.
func (w *watcher) lines(grants []client.LiveGrant, _ bool, failed error) error {
	if failed != nil {
		if !w.failing {
			fmt.Fprintln(w.errs, "still asking:", failed)
		}
		w.failing = true
		return nil
	}
	w.failing = false
	now := make(map[string]client.LiveGrant, len(grants))
	for _, g := range grants {
		now[g.ID] = g
		if _, ok := w.known[g.ID]; !ok {
			if err := w.line("live", g); err != nil {
				return err
			}
		}
	}
	for _, g := range w.known {
		if _, ok := now[g.ID]; !ok {
			if err := w.line("gone", g); err != nil {
				return err
			}
		}
	}
	w.known = now
	return nil
}

func (w *watcher) line(change string, g client.LiveGrant) error {
	if change == "gone" {
		g.TTL = 0
	}
	b, err := json.Marshal(struct {
		At     time.Time        `json:"at"`
		Change string           `json:"change"`
		Grant  client.LiveGrant `json:"grant"`
	}{time.Now().UTC().Truncate(time.Millisecond), change, g})
	if err != nil {
		return err
	}
	_, err = w.out.Write(append(b, '\n'))
	return err
}

// screen redraws the terminal: as many lines and as much of each as it shows.
func (w *watcher) screen(grants []client.LiveGrant, more bool, failed error) error {
	rows, cols, _ := w.size()
	title := fmt.Sprintf("%d live at %s; ^C ends", len(grants), time.Now().Format(time.TimeOnly))
	switch {
	case failed != nil:
		title = fmt.Sprintf("NO ANSWER at %s, the last one is below: %s", time.Now().Format(time.TimeOnly), printable(failed.Error()))
	case more:
		title = "the first " + title
	}
	lines := append([]string{title, ""}, strings.Split(strings.TrimSuffix(grantsTable(grants), "\n"), "\n")...)
	if hidden := len(lines) - rows; hidden > 0 {
		lines = append(lines[:max(rows-1, 0)], fmt.Sprintf("… %d more", hidden+1))
	}
	var b strings.Builder
	b.WriteString("\x1b[H")
	for i, line := range lines {
		if runes := []rune(line); len(runes) > cols {
			line = string(runes[:max(cols-1, 0)]) + "…"
		}
		if i > 0 {
			b.WriteString("\n")
		}
		b.WriteString(line + "\x1b[K")
	}
	b.WriteString("\x1b[J")
	_, err := io.WriteString(w.out, b.String())
	return err
}
