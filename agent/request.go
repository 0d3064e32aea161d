package agent

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lateen-mesh/lateen/wellknown"
)

// maxPage bounds an admin page that is read.
const maxPage = 256 << 20

func newRequestCommand() *cobra.Command {
	address, port := "", wellknown.ProxyAdminPort
	cmd := &cobra.Command{
		Use:     "request METHOD PATH [BODY]",
		Short:   "Make a request to the admin API of the proxy",
		Example: "  pilot-agent request GET stats\n  pilot-agent request POST 'logging?level=debug'",
		Args:    cobra.RangeArgs(2, 3),
		RunE: func(cmd *cobra.Command, args []string) error {
			if address == "" {
				address = net.JoinHostPort("localhost", strconv.Itoa(port))
			}
			body := ""
			if len(args) == 3 {
				body = args[2]
			}
			return request(cmd.Context(), cmd.OutOrStdout(), address, args[0], args[1], body)
		},
	}
	cmd.Flags().IntVar(&port, "debug-port", port, "port of the admin API")
	cmd.Flags().StringVar(&address, "debug-addr", "", "HOST:PORT of the admin API, where it is not on loopback")
	return cmd
}

// request copies the answer to w; a status of 300 or more is an error that holds it.
func request(ctx context.Context, w io.Writer, address, method, path, body string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	url := "http://" + address + "/" + strings.TrimPrefix(path, "/")
	r, err := http.NewRequestWithContext(ctx, strings.ToUpper(method), url, strings.NewReader(body))
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(r)
	if err != nil {
		return fmt.Errorf("%s %s: %w (is the proxy running, with its admin API on %s?)", method, path, err, address)
	}
	defer answer.Body.Close()
	page := io.LimitReader(answer.Body, maxPage)
	if answer.StatusCode >= http.StatusMultipleChoices {
		text, _ := io.ReadAll(io.LimitReader(page, 4096))
		return fmt.Errorf("%s %s: %s: %s", method, path, answer.Status, strings.TrimSpace(string(text)))
	}
	_, err = io.Copy(w, page)
	return err
}
