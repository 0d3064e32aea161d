package hcm_test

import (
	"bufio"
	"strings"
	"testing"
)

// TestEdge: what upstreams learn of the client, and what of the client's own word they see.
func TestEdge(t *testing.T) {
	b := newBackend(t)
	const all = "x-forwarded-for: 10.1.1.1, 5.6.7.8\r\nx-forwarded-proto: https\r\nx-envoy-internal: true\r\nx-envoy-max-retries: 1\r\n" +
		"x-envoy-original-path: /p\r\nx-request-id: mine\r\n"
	cases := []struct{ name, manager, headers, want string }{
		{"WI-004 at the edge", `"use_remote_address": true`, all,
			"x-forwarded-for: 10.1.1.1, 5.6.7.8,192.0.2.2 x-forwarded-proto: http x-request-id: UUID x-envoy-external-address: 127.0.0.1"},
		{"WI-005 inside", `"use_remote_address": false`, all,
			"x-forwarded-for: 10.1.1.1, 5.6.7.8 x-forwarded-proto: https x-envoy-original-path: /p x-request-id: mine"},
		{"one trusted hop", `"use_remote_address": true, "xff_num_trusted_hops": 1`, all,
			"x-forwarded-for: 10.1.1.1, 5.6.7.8,192.0.2.2 x-forwarded-proto: https x-request-id: UUID x-envoy-external-address: 5.6.7.8"},
		{"one trusted hop that adds a line of its own", `"use_remote_address": true, "xff_num_trusted_hops": 1, "generate_request_id": false`,
			"x-forwarded-for: 10.1.1.1\r\nx-other: 1\r\nx-forwarded-for: 5.6.7.8\r\n",
			"x-forwarded-for: 10.1.1.1,5.6.7.8,192.0.2.2 x-other: 1 x-forwarded-proto: http x-envoy-external-address: 5.6.7.8"},
		{"internal client", `"use_remote_address": true, "internal_address_config": {"cidr_ranges": [{"address_prefix": "127.0.0.0", "prefix_len": 8}]}`,
			"x-request-id: mine\r\nx-envoy-max-retries: 1\r\n", "x-request-id: mine x-forwarded-for: 192.0.2.2 x-forwarded-proto: http x-envoy-internal: true"},
		{"keep external ids", `"use_remote_address": true, "preserve_external_request_id": true, "skip_xff_append": true`, "x-request-id: mine\r\n",
			"x-request-id: mine x-forwarded-proto: http x-envoy-external-address: 127.0.0.1"},
		{"no ids", `"generate_request_id": false`, "", "x-forwarded-proto: http"},
		{"port", `"use_remote_address": true, "append_x_forwarded_port": true, "skip_xff_append": true, "generate_request_id": false`, "",
			"x-forwarded-proto: http x-forwarded-port: PORT x-envoy-external-address: 127.0.0.1"},
		{"te", `"generate_request_id": false`, "te: gzip, trailers\r\n", "te: trailers x-forwarded-proto: http"},
		{"client certificates of nobody", `"forward_client_cert_details": "APPEND_FORWARD", "generate_request_id": false`, "x-forwarded-client-cert: Hash=1\r\n", "x-forwarded-proto: http"},
		{"client certificates of anybody", `"forward_client_cert_details": "ALWAYS_FORWARD_ONLY", "generate_request_id": false`, "x-forwarded-client-cert: Hash=1\r\n",
			"x-forwarded-client-cert: Hash=1 x-forwarded-proto: http"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			g := toBackend(t, b, c.manager, "")
			conn := g.dial(t)
			send(t, conn, "GET /x HTTP/1.1\r\nHost: a\r\n"+c.headers+"\r\n")
			_, body := response(t, bufio.NewReader(conn))
			_, port, _ := strings.Cut(g.addr, ":")
			lines := strings.Split(strings.TrimSpace(steady(body)), "\n")[2:]
			var got []string
			for _, l := range lines {
				if !strings.HasPrefix(l, "x-envoy-attempt-count") {
					got = append(got, strings.Replace(l, port, "PORT", 1))
				}
			}
			if text := strings.Join(got, " "); text != c.want {
				t.Errorf("got  %s\nwant %s", text, c.want)
			}
		})
	}
}

// TestPaths: how paths are made canonical before they are routed.
func TestPaths(t *testing.T) {
	b := newBackend(t)
	gateways := map[string]*gateway{
		"normal":  toBackend(t, b, `"normalize_path": true, "generate_request_id": false`, ""),
		"merge":   toBackend(t, b, `"normalize_path": true, "merge_slashes": true, "generate_request_id": false`, ""),
		"reject":  toBackend(t, b, `"normalize_path": true, "path_with_escaped_slashes_action": "REJECT_REQUEST"`, ""),
		"forward": toBackend(t, b, `"normalize_path": true, "path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD"`, ""),
		"send":    toBackend(t, b, `"normalize_path": true, "path_with_escaped_slashes_action": "UNESCAPE_AND_REDIRECT"`, ""),
		"as is":   toBackend(t, b, "", ""),
	}
	cases := []struct{ gateway, path, want string }{
		{"normal", "/a/./b/../c", "/a/c"}, {"normal", "/a/..", "/"}, {"normal", "/../../x", "/x"}, {"normal", "/a/b/.", "/a/b/"},
		{"normal", "/a//b", "/a//b"}, {"normal", "/a//../b", "/a/b"}, {"normal", "//../b", "/b"}, {"normal", "/a/b/%2e%2E/c", "/a/c"},
		{"normal", "/a/..;x/b", "/b"}, {"normal", "/a/.../b", "/a/.../b"}, {"normal", `/a\b\..\c?d\e`, `/a/c?d\e`}, {"normal", "/%41%7e%2f%zz%", "/A~%2f%zz%"},
		{"normal", `/q"<>^{|}z`, "/q%22%3C%3E%5E%7B%7C%7Dz"}, {"normal", "/x?a=%41/../", "/x?a=%41/../"}, {"normal", "/%00", "400 Bad Request"},
		{"normal", "/x#y", "400 Bad Request"}, {"as is", "/a/../b//c", "/a/../b//c"}, {"merge", "/a//b///c?d//e", "/a/b/c?d//e"},
		{"reject", "/a%2fb", "400 Bad Request"}, {"reject", "/a%5Cb", "400 Bad Request"}, {"reject", "/a%2eb", "/a.b"},
		{"forward", "/a%2Fb%5c..", "/a/"}, {"send", "/a%2Fb?c=%2f", "307 Temporary Redirect /a/b?c=%2f"},
	}
	for _, c := range cases {
		t.Run(c.gateway+" "+c.path, func(t *testing.T) {
			conn := gateways[c.gateway].dial(t)
			send(t, conn, "GET "+c.path+" HTTP/1.1\r\nHost: a\r\n\r\n")
			head, body := response(t, bufio.NewReader(conn))
			got := strings.TrimPrefix(strings.Split(head, "\r\n")[0], "HTTP/1.1 ")
			if got == "200 OK" {
				got = strings.Split(body, " ")[1]
			}
			if _, to, ok := strings.Cut(head, "location: "); ok {
				got += " " + to[:strings.IndexByte(to, '\r')]
			}
			if got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}
