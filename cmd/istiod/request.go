package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// newRequest is `istiod request`: one request to the pages of the control plane on
// this machine, for use inside its container.
func newRequest() *cobra.Command {
	var address string
	cmd := &cobra.Command{
		Use: "request METHOD PATH", Short: "Call a page of the control plane on this machine", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := http.NewRequestWithContext(cmd.Context(), strings.ToUpper(args[0]), "http://"+address+"/"+strings.TrimPrefix(args[1], "/"), nil)
			if err != nil {
				return err
			}
			client := &http.Client{Timeout: 30 * time.Second}
			reply, err := client.Do(r)
			if err != nil {
				return err
			}
			defer reply.Body.Close()
			if _, err := io.Copy(cmd.OutOrStdout(), reply.Body); err != nil {
				return err
			}
			if reply.StatusCode >= 400 {
				return fmt.Errorf("%s %s: %s", args[0], args[1], reply.Status)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&address, "address", "127.0.0.1:15014", "HOST:PORT of the pages")
	return cmd
}
