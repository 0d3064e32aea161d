package authz

import (
	"context"
	"errors"
	"sync"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/google/uuid"
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/plugins"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/topdown/cache"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
)

// errUndefined is what proxies are told where no rule decides.
var errUndefined = errors.New("undefined decision")

// A decider answers CheckRequests by the policies that OPA has at the moment.
type decider struct {
	authv3.UnimplementedAuthorizationServer
	manager *plugins.Manager
	config  *Config
	cache   cache.InterQueryCache // of what policies fetch

	mu       sync.Mutex
	compiler *ast.Compiler // that prepared was made with
	prepared rego.PreparedEvalQuery
}

func newDecider(m *plugins.Manager, c *Config) *decider {
	return &decider{manager: m, config: c, cache: cache.NewInterQueryCache(m.InterQueryBuiltinCacheConfig())}
}

// A decision is one question on its way.
type decision struct {
	id      string
	began   time.Time
	metrics metrics.Metrics
	input   map[string]any
	result  any // what the policy says; nil where it was not asked
	txn     storage.Transaction
}

// Check decides and writes the decision log. What cannot be read of a request is refused with 400;
// a policy that does not decide is an error.
func (d *decider) Check(ctx context.Context, q *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	now := &decision{id: uuid.NewString(), began: time.Now(), metrics: metrics.New()}
	now.metrics.Timer(metrics.ServerHandler).Start()
	answer, err := d.decide(ctx, q, now)
	now.metrics.Timer(metrics.ServerHandler).Stop()
	if now.txn != nil {
		d.log(ctx, now, err)
		d.manager.Store.Abort(ctx, now.txn)
	}
	if d.config.DryRun {
		return &authv3.CheckResponse{Status: &rpcstatus.Status{Code: int32(codes.OK)}}, nil
	}
	if unreadable, ok := errors.AsType[*unreadableError](err); ok {
		return badRequest(unreadable), nil
	}
	return answer, err
}

func (d *decider) decide(ctx context.Context, q *authv3.CheckRequest, now *decision) (*authv3.CheckResponse, error) {
	var err error
	if now.txn, err = d.manager.Store.NewTransaction(ctx); err != nil {
		return nil, err
	}
	if now.input, err = inputOf(q, !d.config.SkipBody); err != nil {
		return nil, err
	}
	if now.result, err = d.evaluate(ctx, now); err != nil {
		return nil, err
	}
	return answerOf(now.result, now.id)
}

// evaluate asks the policy.
func (d *decider) evaluate(ctx context.Context, now *decision) (any, error) {
	input, err := ast.InterfaceToValue(now.input)
	if err != nil {
		return nil, err
	}
	query, err := d.prepare(ctx, now.txn)
	if err != nil {
		return nil, err
	}
	set, err := query.Eval(ctx, rego.EvalTransaction(now.txn), rego.EvalParsedInput(input), rego.EvalMetrics(now.metrics),
		rego.EvalInterQueryBuiltinCache(d.cache), rego.EvalPrintHook(d.manager.PrintHook()))
	switch {
	case err != nil:
		return nil, err
	case len(set) != 1 || len(set[0].Expressions) != 1:
		return nil, errUndefined
	}
	return set[0].Expressions[0].Value, nil
}

// prepare returns the query, compiled anew when the policies have changed.
func (d *decider) prepare(ctx context.Context, txn storage.Transaction) (rego.PreparedEvalQuery, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	compiler := d.manager.GetCompiler()
	if compiler == d.compiler && compiler != nil {
		return d.prepared, nil
	}
	prepared, err := rego.New(
		rego.ParsedQuery(ast.NewBody(ast.NewExpr(ast.NewTerm(d.config.decision)))),
		rego.Compiler(compiler), rego.Store(d.manager.Store), rego.Transaction(txn), rego.Runtime(d.manager.Info),
		rego.EnablePrintStatements(d.manager.EnablePrintStatements()),
	).PrepareForEval(ctx)
	if err == nil {
		d.compiler, d.prepared = compiler, prepared
	}
	return prepared, err
}
