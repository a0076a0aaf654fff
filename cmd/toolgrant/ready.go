package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func readyCommand() *cobra.Command {
	var config configFlag
	cmd := &cobra.Command{
		Use:   "ready [--config FILE]",
		Short: "Ask a running server whether it is ready",
		Long: `Ask the server of this configuration, at its admin.listen, whether a call inside
a grant could be allowed now, and say of each part how it is. It is a probe for
where nothing but this program is at hand, as in its image.`,
		Example: `  toolgrant ready --config /etc/toolgrant/toolgrant.yaml`,
		Args:    operands(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.load()
			if err != nil {
				return err
			}
			if cfg.Admin.Listen == "" {
				return usageError(fmt.Errorf("%s has no admin.listen: write, for example, admin: {listen: 127.0.0.1:9190}", config.path()))
			}
			text, err := askReady(cmd.Context(), cfg.Admin)
			if err != nil {
				return err
			}
			return printLine(cmd, text)
		},
	}
	config.register(cmd)
	return cmd
}

// askReady gives what /readyz says; an answer of "not ready" is an error.
func askReady(ctx context.Context, a AdminConfig) (string, error) {
	scheme, t := "http", http.DefaultTransport.(*http.Transport).Clone()
	t.Proxy = nil
	if a.TLS.on() {
		// The server's own certificate is its client's here, too; whose it is was
		// read from the file that the server reads.
		pair, err := tls.LoadX509KeyPair(a.TLS.Cert, a.TLS.Key)
		if err != nil {
			return "", usageError(err)
		}
		leaf, err := x509.ParseCertificate(pair.Certificate[0])
		if err != nil {
			return "", usageError(err)
		}
		scheme, t.TLSClientConfig = "https", &tls.Config{
			MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair},
			InsecureSkipVerify: true, // in favour of exactly this certificate
			VerifyConnection: func(s tls.ConnectionState) error {
				if !s.PeerCertificates[0].Equal(leaf) {
					return fmt.Errorf("the certificate is not that of %s", a.TLS.Cert)
				}
				return nil
			},
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+a.Listen+"/readyz", nil)
	if err != nil {
		return "", usageError(err)
	}
	res, err := (&http.Client{Transport: t}).Do(req)
	if err != nil {
		return "", fmt.Errorf("no answer: %w", err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 16<<10))
	text := strings.TrimSpace(string(body))
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("not ready (status %d):\n%s", res.StatusCode, text)
	}
	return text, err
}
