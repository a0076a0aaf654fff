package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/toolgrant/toolgrant/identity"
)

// devIssuerURL cannot exist (RFC 6761, Section 6.4), so that nobody's real
// issuer is ever taken for this one.
const devIssuerURL = "https://dev-issuer.invalid"

func identityCommand() *cobra.Command {
	var (
		dir, agent, audience, issuer string
		groups                       []string
		ttl                          = ttlFlag{time.Hour}
	)
	cmd := &cobra.Command{
		Use:   "identity --agent NAME [--group GROUP]... [--dir DIR] [flags]",
		Short: "Mint an identity token, for development",
		Long: `Mint an identity token from an issuer that lives in a folder. FOR DEVELOPMENT
ONLY: whoever can read the folder can be any agent.

Beside "toolgrant dev" the folder is that one's issuer, which the broker that
runs there believes. Elsewhere name one: the first use makes the issuer's key and
DIR/jwks.json. A broker that names that file, and the same issuer URL, in its
configuration believes these tokens:

  identity:
    issuers:
    - alias: dev
      issuer: "` + devIssuerURL + `"
      jwks_file: DIR/jwks.json
      audience: toolgrant`,
		Example: `  # Beside "toolgrant dev", in a shell that has pasted what it prints.
  toolgrant identity --agent ci-1 --group orchestrators --group reporting > ci.jwt

  # With an issuer of its own.
  umask 077
  toolgrant identity --dir dev-issuer --agent planner --group orchestrators > planner.jwt
  export TOOLGRANT_IDENTITY_TOKEN_FILE=planner.jwt`,
		Args: operands(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if at := os.Getenv(envDevDir); dir == "" && at != "" {
				dir = filepath.Join(at, devIssuerDir)
			}
			switch {
			case dir == "":
				return usagef("--dir is missing: the folder of the development issuer (\"toolgrant dev\" has one, and says so by %s)", envDevDir)
			case agent == "":
				return usagef("--agent is missing: the agent's name, without the issuer's alias")
			}
			dev, err := identity.NewDevIssuer(dir, issuer)
			if err != nil {
				return err
			}
			token, err := dev.Mint(agent, groups, audience, ttl.Duration)
			if err != nil {
				return usageError(err)
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "FOR DEVELOPMENT ONLY: a token of issuer %s for %q, good for %s; its keys: %s\n",
				issuer, agent, ttl.Duration, dev.JWKSFile())
			return printLine(cmd, token)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "`DIR` of the development issuer; made if it is not there (default $"+envDevDir+"/"+devIssuerDir+")")
	cmd.Flags().StringVar(&agent, "agent", "", "`NAME` of the agent: the token's subject (required)")
	cmd.Flags().StringArrayVar(&groups, "group", nil, "`GROUP` that the agent is in; may be repeated")
	cmd.Flags().StringVar(&audience, "audience", "toolgrant", "whom the token is for: the broker, or a server's resource `URI`")
	cmd.Flags().StringVar(&issuer, "issuer", devIssuerURL, "the issuer's `URL`")
	cmd.Flags().Var(&ttl, "ttl", "`TIME` that the token is good for")
	return cmd
}
