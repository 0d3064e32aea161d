package authz

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/plugins/logs"
	"github.com/open-policy-agent/opa/v1/server"
)

// hidden stands in decision logs for what may be a secret.
const hidden = "(hidden)"

// secretWords are in the names of headers that carry credentials. Policies may know of other secrets, which
// their data.system.log.mask takes out of logs.
var secretWords = []string{"authorization", "cookie", "token", "secret", "password", "api-key", "apikey"}

// A loggedError is an error as JSON can tell it.
type loggedError struct {
	Message string `json:"message"`
}

func (e *loggedError) Error() string { return e.Message }

// log writes a decision to OPA's decision log, where there is one, without secrets.
func (d *decider) log(ctx context.Context, now *decision, failed error) {
	logger := logs.Lookup(d.manager)
	if logger == nil {
		return
	}
	info := &server.Info{
		Txn: now.txn, Bundles: d.bundles(ctx, now), DecisionID: now.id, Path: d.config.Path,
		Timestamp: now.began, Metrics: now.metrics,
	}
	if failed != nil {
		info.Error = &loggedError{failed.Error()}
	}
	if now.input != nil {
		var input any = withoutSecrets(now.input)
		info.Input = &input
	}
	if now.result != nil {
		var result = resultWithoutSecrets(now.result)
		info.Results = &result
	}
	if err := logger.Log(ctx, info); err != nil {
		d.manager.Logger().Error("A decision was not logged: %v.", err)
	}
}

// bundles are those in force. Logs do without what cannot be read of them.
func (d *decider) bundles(ctx context.Context, now *decision) map[string]server.BundleInfo {
	all := map[string]server.BundleInfo{}
	names, err := bundle.ReadBundleNamesFromStore(ctx, d.manager.Store, now.txn)
	if err != nil {
		return all
	}
	for _, name := range names {
		revision, _ := bundle.ReadBundleRevisionFromStore(ctx, d.manager.Store, now.txn, name)
		all[name] = server.BundleInfo{Revision: revision}
	}
	return all
}

// withoutSecrets is an input without credentials, bodies and the values of queries. The input stays as it is.
func withoutSecrets(input map[string]any) map[string]any {
	input = maps.Clone(input)
	conceal(input, "parsed_body")
	if query, ok := input["parsed_query"].(map[string]any); ok {
		query = maps.Clone(query)
		for name := range query {
			query[name] = hidden
		}
		input["parsed_query"] = query
	}
	attributes := inside(input, "attributes")
	request := inside(attributes, "request")
	http := inside(request, "http")
	conceal(http, "body", "rawBody", "query")
	withoutQuery(http, "path")
	headers := inside(http, "headers")
	concealHeaders(headers)
	withoutQuery(headers, ":path", "referer", "x-envoy-original-path")
	concealList(inside(http, "headerMap"))
	return input
}

// resultWithoutSecrets is a decision without the credentials that it sets.
func resultWithoutSecrets(result any) any {
	object, ok := result.(map[string]any)
	if !ok {
		return result
	}
	object = maps.Clone(object)
	for _, field := range []string{"headers", "response_headers_to_add"} {
		if _, ok := object[field].([]any); ok {
			object[field] = hidden
		}
		concealHeaders(inside(object, field))
	}
	return object
}

func concealHeaders(headers map[string]any) {
	for name := range headers {
		if slices.ContainsFunc(secretWords, func(word string) bool { return strings.Contains(strings.ToLower(name), word) }) {
			headers[name] = hidden
		}
	}
}

// inside replaces an object in an object by a copy, which it returns; nil where there is none.
func inside(object map[string]any, name string) map[string]any {
	part, ok := object[name].(map[string]any)
	if !ok {
		return nil
	}
	part = maps.Clone(part)
	object[name] = part
	return part
}

func conceal(object map[string]any, names ...string) {
	for _, name := range names {
		if v, ok := object[name]; ok && v != nil {
			object[name] = hidden
		}
	}
}

func withoutQuery(object map[string]any, names ...string) {
	for _, name := range names {
		if text, ok := object[name].(string); ok {
			if path, _, found := strings.Cut(text, "?"); found {
				object[name] = path + "?" + hidden
			}
		}
	}
}

// concealList hides the values of headers that are told as a list, with bytes in base64.
func concealList(list map[string]any) {
	headers, _ := list["headers"].([]any)
	headers = slices.Clone(headers)
	for i, h := range headers {
		if pair, ok := h.(map[string]any); ok {
			headers[i] = map[string]any{"key": pair["key"]}
		}
	}
	if headers != nil {
		list["headers"] = headers
	}
}
