package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/toolgrant/toolgrant/client"
)

func taskCommand() *cobra.Command {
	return group("task", "Start and end tasks", taskStartCommand(), taskEndCommand())
}

func taskStartCommand() *cobra.Command {
	var (
		broker brokerFlags
		req    client.TaskRequest
		ttl    ttlFlag
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "start --kind KIND [--agent AGENT]... [--ttl TIME]",
		Short: "Start a task, and print its id",
		Long: `Start a task: a bounded piece of work, for which its agents may hold grants.

The id goes to stdout alone, so that a script can keep it. The task ends by
"toolgrant task end", or at its deadline, and never opens again.`,
		Example: `  # A task for yourself.
  task=$(toolgrant task start --kind monthly-report)

  # A task whose grants another agent holds, for at most half an hour.
  toolgrant task start --kind monthly-report --agent corp/report-bot --ttl 30m --json`,
		Args: operands(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if req.Kind == "" {
				return usagef("--kind is missing: the kind of work, as the policy names it")
			}
			req.TTL = ttl.Duration
			c, err := broker.client(cmd)
			if err != nil {
				return err
			}
			t, err := c.StartTask(cmd.Context(), req)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "task %s of %q is open until %s for %q\n",
				t.ID, t.Kind, t.Deadline.Local().Format(time.RFC3339), strings.Join(t.Agents, ", "))
			if asJSON {
				return printJSON(cmd, t)
			}
			return printLine(cmd, t.ID)
		},
	}
	broker.register(cmd)
	cmd.Flags().StringVar(&req.Kind, "kind", "", "`KIND` of work, as the policy names it (required)")
	cmd.Flags().StringArrayVar(&req.Agents, "agent", nil, "`AGENT` (ALIAS/SUBJECT) that may hold its grants; may be repeated (default you)")
	cmd.Flags().Var(&ttl, "ttl", "`TIME` until its deadline, such as 30m (default the broker's maximum)")
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
