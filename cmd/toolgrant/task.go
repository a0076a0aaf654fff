package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/toolgrant/toolgrant/client"
)

func taskCommand() *cobra.Command {
	return group("task", "Start, show, list and end tasks",
		taskStartCommand(), taskShowCommand(), taskListCommand(), taskEndCommand())
}

func taskStartCommand() *cobra.Command {
	var (
		broker    brokerFlags
		req       client.TaskRequest
		ttl, beat ttlFlag
		params    paramFlags
		asJSON    bool
	)
	cmd := &cobra.Command{
		Use:   "start --kind KIND [--agent AGENT]... [--param NAME=TEXT]... [--grant] [--ttl TIME] [--beat TIME]",
		Short: "Start a task, and print its id",
		Long: `Start a task: a bounded piece of work, for which its agents may hold grants.

The id goes to stdout alone, so that a script can keep it. The task ends by
"toolgrant task end", or at its deadline, and never opens again. With --beat it
also ends when its owner has been silent for that long (POST
/v1/tasks/TASK/beat): a task whose work has died does not wait for its deadline.
"toolgrant exec" does that for a command.

Where the kind has a manifest, the task has the parameters that this asks for
(--param), which never change, and no grant of it goes beyond what it has. With
--grant all of that is asked for at once: then the answer with the tokens goes to
stdout, as JSON, and stderr tells what policy refused.`,
		Example: `  # A task for yourself.
  task=$(toolgrant task start --kind monthly-report)

  # A task whose grants another agent holds, for at most half an hour.
  toolgrant task start --kind monthly-report --agent corp/report-bot --ttl 30m --json

  # All that the manifest of pay-bill has, for these parameters.
  toolgrant task start --kind pay-bill --agent corp/clerk --param recipient=ACME --param limit:=100 --grant |
    jq -r '.tokens[0].access_token'`,
		Args: operands(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if req.Kind == "" {
				return usagef("--kind is missing: the kind of work, as the policy names it")
			}
			req.TTL, req.Beat = ttl.Duration, beat.Duration
			var err error
			if req.Params, err = params.object(cmd); err != nil {
				return err
			}
			c, err := broker.client(cmd)
			if err != nil {
				return err
			}
			t, err := c.StartTask(cmd.Context(), req)
			if err != nil {
				return params.typeHint(err)
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "task %s of %q is open until %s for %q\n",
				t.ID, t.Kind, t.Deadline.Local().Format(time.RFC3339), strings.Join(t.Agents, ", "))
			for _, no := range t.Refused {
				fmt.Fprintln(cmd.ErrOrStderr(), notGranted(no))
			}
			if asJSON || req.Grant {
				return printJSON(cmd, t)
			}
			return printLine(cmd, t.ID)
		},
	}
	broker.register(cmd)
	params.register(cmd)
	cmd.Flags().BoolVar(&req.Grant, "grant", false, "ask for all that the kind's manifest has, and print the answer as JSON")
	cmd.Flags().StringVar(&req.Kind, "kind", "", "`KIND` of work, as the policy names it (required)")
	cmd.Flags().StringArrayVar(&req.Agents, "agent", nil, "`AGENT` (ALIAS/SUBJECT) that may hold its grants; may be repeated (default you)")
	cmd.Flags().Var(&ttl, "ttl", "`TIME` until its deadline, such as 30m (default the broker's maximum)")
	cmd.Flags().Var(&beat, "beat", "`TIME` of silence that ends it, from 2s to 1h (default none)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the whole answer as JSON")
	return cmd
}

// notGranted says which tool of the manifest was refused, and why.
func notGranted(r client.Refused) string {
	text := fmt.Sprintf("not granted: %q: %s: %s", r.Tool, r.Reason, r.Help)
	if r.Advice != "" {
		text += "; " + r.Advice
	}
	return text + " (" + r.DecisionID + ")"
}

func taskShowCommand() *cobra.Command {
	var (
		broker brokerFlags
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "show TASK",
		Short: "Show a task, with its live grants",
		Long: `Show a task, and those of its live grants that you may see. A task that you may
not see is refused as an unknown one is.`,
		Example: `  toolgrant task show t_k3v6w7yz2m4n5p6q7r2s3t4u5v
  toolgrant task show t_k3v6w7yz2m4n5p6q7r2s3t4u5v --json`,
		Args: operands("TASK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := broker.client(cmd)
			if err != nil {
				return err
			}
			t, err := c.Task(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd, t)
			}
			return output(cmd, taskText(t))
		},
	}
	broker.register(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the whole answer as JSON")
	return cmd
}

func taskText(t client.Task) string {
	var b strings.Builder
	line := func(name, value string) { fmt.Fprintf(&b, "%-9s %s\n", name, printable(value)) }
	line("task", t.ID)
	line("state", t.State)
	line("kind", t.Kind)
	line("owner", t.Owner)
	line("agents", strings.Join(t.Agents, ", "))
	if t.Params != nil {
		line("params", string(t.Params))
	}
	line("deadline", t.Deadline.Local().Format(time.RFC3339))
	if t.Beat > 0 {
		line("beat", "ends when its owner is silent for "+inWords(time.Duration(t.Beat)*time.Second))
	}
	if len(t.Grants) == 0 {
		line("grants", "none alive that you may see")
		return b.String()
	}
	return b.String() + "\n" + grantsTable(t.Grants)
}

func taskListCommand() *cobra.Command {
	var (
		broker brokerFlags
		filter client.TaskFilter
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "list [--kind KIND] [--owner AGENT] [--agent AGENT]",
		Short: "List the open tasks that you may see",
		Long: `List open tasks: those that you own, those for which you may hold grants, and
those that policy lets you end. At most 1000; filters narrow the list.`,
		Example: `  toolgrant task list
  toolgrant task list --kind release --agent corp/ci-1
  toolgrant task list --json | jq -r '.tasks[].task'`,
		Args: operands(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := broker.client(cmd)
			if err != nil {
				return err
			}
			tasks, more, err := c.Tasks(cmd.Context(), filter)
			if err != nil {
				return err
			}
			if more {
				fmt.Fprintln(cmd.ErrOrStderr(), "there are more than these: narrow the list by --kind, --owner or --agent")
			}
			if asJSON {
				return printJSON(cmd, struct {
					Tasks []client.Task `json:"tasks"`
					More  bool          `json:"more"`
				}{tasks, more})
			}
			rows := make([][]string, len(tasks))
			for i, t := range tasks {
				rows[i] = []string{t.ID, t.Kind, t.Owner, strings.Join(t.Agents, ","), inWords(time.Until(t.Deadline))}
			}
			return output(cmd, table(rows, "TASK", "KIND", "OWNER", "AGENTS", "LEFT"))
		},
	}
	broker.register(cmd)
	cmd.Flags().StringVar(&filter.Kind, "kind", "", "only tasks of this `KIND`")
	cmd.Flags().StringVar(&filter.Owner, "owner", "", "only tasks that this `AGENT` (ALIAS/SUBJECT) started")
	cmd.Flags().StringVar(&filter.Agent, "agent", "", "only tasks whose grants this `AGENT` may hold")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the whole answer as JSON")
	return cmd
}

func taskEndCommand() *cobra.Command {
	var broker brokerFlags
	cmd := &cobra.Command{
		Use:     "end TASK",
		Short:   "End a task, and all its grants",
		Long:    `End a task. No call under any of its grants passes once this has returned.`,
		Example: `  toolgrant task end t_k3v6w7yz2m4n5p6q7r2s3t4u5v`,
		Args:    operands("TASK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := broker.client(cmd)
			if err != nil {
				return err
			}
			if err := c.EndTask(cmd.Context(), args[0]); err != nil {
				return err
			}
			return printLine(cmd, args[0]+" ended")
		},
	}
	broker.register(cmd)
	return cmd
}
