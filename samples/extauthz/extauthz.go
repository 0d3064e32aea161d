// Package extauthz is the authorizer of Istio's examples: it allows requests with the header
// "x-ext-authz: allow", and those of one service account. It answers proxies by HTTP and, as
// envoy.service.auth.v3.Authorization, by gRPC, at the same ports.
package extauthz

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"strings"
)

// Headers of the protocol: what is looked for, and what is answered.
const (
	checkHeader    = "x-ext-authz"
	resultHeader   = "x-ext-authz-check-result"
	receivedHeader = "x-ext-authz-check-received"
	overrideHeader = "x-ext-authz-additional-header-override"

	grpcOverride = "grpc-additional-header-override-value"
	denial       = "denied by ext_authz for not found header `x-ext-authz: allow` in the request"
)

// maxQuestion bounds a question, maxTold what an answer repeats of it.
const (
	maxQuestion = 4 << 20
	maxTold     = 16 << 10
)

// An authorizer answers questions.
type authorizer struct {
	account string // the service account that may do everything, "" for none
	log     *log.Logger
}

// New returns the authorizer, which allows a service account by its name ("" for none) and
// writes a line to out for each question.
func New(account string, out io.Writer) http.Handler {
	return &authorizer{account: account, log: log.New(out, "", log.LstdFlags)}
}

// ServeHTTP answers a question in the form in which it came.
func (a *authorizer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxQuestion))
	if err != nil {
		http.Error(w, "the question is too large or incomplete", http.StatusBadRequest)
		return
	}
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		a.serveGRPC(w, r, body)
		return
	}
	told := received(r.Method, r.Host+r.URL.String(), fmt.Sprint(r.Header), string(body))
	result := a.decide("HTTP", r.Header.Get(checkHeader), "", told)
	h := w.Header()
	h.Set(resultHeader, result)
	h.Set(receivedHeader, told)
	h.Set(overrideHeader, r.Header.Get(overrideHeader))
	if result == allowed {
		return
	}
	w.WriteHeader(http.StatusForbidden)
	_, _ = io.WriteString(w, denial) // who has asked sees whether it came
}

// The results.
const (
	allowed = "allowed"
	denied  = "denied"
)

// decide is the whole policy.
func (a *authorizer) decide(kind, header, principal, told string) string {
	result := denied
	if header == "allow" || a.account != "" && strings.HasSuffix(principal, "/sa/"+a.account) {
		result = allowed
	}
	a.log.Printf("[%s][%s]: %s", kind, result, told)
	return result
}

// received says on one line what was asked.
func received(method, url, headers, body string) string {
	text := fmt.Sprintf("%s %s, headers: %s, body: [%s]", method, url, headers, body)
	text = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return ' '
		}
		return c
	}, text)
	if len(text) > maxTold {
		text = text[:maxTold] + "…"
	}
	return text
}
