package delegation_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"guichet/identity"
	"guichet/identity/delegation"
	"guichet/internal/approval"
	"guichet/internal/clock"
	"guichet/internal/id"
	"guichet/internal/mail"
	"guichet/internal/seal"
	"guichet/internal/testdb"
)

// A world is residents and the rights between them, with a clock that tests move.
type world struct {
	t      *testing.T
	db     *pgxpool.Pool
	at     time.Time
	people *identity.Service
	*delegation.Service

	mu      sync.Mutex
	mails   []mail.Message
	signUps int // each from another network
}

func (w *world) Enqueue(_ context.Context, _ pgx.Tx, m mail.Message) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mails = append(w.mails, m)
	return nil
}

// mail returns the last message of a template.
func (w *world) mail(template string) mail.Message {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range slices.Backward(w.mails) {
		if m.Template == template {
			return m
		}
	}
	w.t.Fatalf("no mail %s", template)
	return mail.Message{}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, db: testdb.New(t), at: time.Date(2026, time.November, 24, 15, 0, 0, 0, time.UTC)}
	now := func() time.Time { return w.at }
	master, err := seal.New(bytes.Repeat([]byte{7}, seal.Size))
	must(t, err)
	w.people, err = identity.New(t.Context(), w.db, identity.Config{Now: now, BaseURL: "https://guichet.example", Master: master, Mail: w})
	must(t, err)
	w.Service, err = delegation.New(t.Context(), w.db, delegation.Config{People: w.people, Mail: w, Master: master, Now: now, BaseURL: "https://pay.example.ca"})
	must(t, err)
	return w
}

var visitor = identity.Visitor{Network: "203.0.113.0/24", Device: "Firefox, Linux"}

// resident signs somebody up and in, with two factors.
func (w *world) resident(email string) identity.Person {
	p, _ := w.signUp(email)
	p.ACR = 2
	return p
}

func (w *world) signUp(email string) (identity.Person, string) {
	w.t.Helper()
	ctx := w.t.Context()
	w.signUps++
	network := fmt.Sprintf("198.51.%d.0/24", w.signUps)
	p, browser, err := w.people.Begin(ctx, identity.NewPending{ReturnPath: "/"}, "")
	must(w.t, err)
	must(w.t, w.people.AskCode(ctx, identity.CodeRequest{Pending: p.ID, Browser: browser, Email: email, Lang: "en", Service: "Guichet", Visitor: identity.Visitor{Network: network}}))
	_, err = w.people.TryCode(ctx, identity.CodeTry{Pending: p.ID, Browser: browser, Code: w.mail("signin-code").Data["code"], Visitor: visitor})
	must(w.t, err)
	name, _, _ := strings.Cut(email, "@")
	in, err := w.people.Register(ctx, identity.Registration{Pending: p.ID, Browser: browser, Name: name, Lang: "fr", Visitor: visitor})
	must(w.t, err)
	person, err := w.people.Session(ctx, in.Token)
	must(w.t, err)
	return person, in.Token
}

// business makes one and returns the owner's right.
func (w *world) business(owner identity.Person) string {
	w.t.Helper()
	right, err := w.CreateBusiness(w.t.Context(), owner.ID, "Boulangerie Démo", "100000009")
	must(w.t, err)
	return right
}

func (w *world) today() clock.Date { return clock.DateOf(w.at) }

// scope is one that everybody may give.
func (w *world) scope() delegation.Scope {
	return delegation.Scope{Rights: []delegation.Right{delegation.PayBills}, PerPayment: 50000, PerMonth: 100000, Until: w.today().AddDays(90)}
}

// give invites by mail and accepts.
func (w *world) give(from identity.Person, under string, to identity.Person, scope delegation.Scope) string {
	w.t.Helper()
	invited, err := w.Invite(w.t.Context(), delegation.Invitation{By: from, Under: under, Scope: scope, Email: to.Email, Lang: "en"})
	must(w.t, err)
	right, err := w.Accept(w.t.Context(), delegation.Answer{By: to, Secret: invited.Secret, Visitor: visitor})
	must(w.t, err)
	return right
}

func (w *world) is(got, want error) {
	w.t.Helper()
	if !errors.Is(got, want) {
		w.t.Fatalf("got %v, want %v", got, want)
	}
}

func (w *world) live(p identity.Person, right string) bool {
	w.t.Helper()
	_, err := w.Live(w.t.Context(), p.ID, right)
	if err != nil {
		w.is(err, delegation.ErrEnded)
	}
	return err == nil
}

func TestABusinessIsGivenAcceptedAndRevoked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	owner, clerk := w.resident("owner@example.ca"), w.resident("clerk@example.ca")
	right := w.business(owner)
	scope := w.scope()
	scope.Departments = []string{"water", "parking", "water"}
	given := w.give(owner, right, clerk, scope)

	d, err := w.Live(t.Context(), clerk.ID, given)
	must(t, err)
	if d.Party.Name != "Boulangerie Démo" || d.Party.Number != "100000009" || d.Party.Proof != delegation.Declared || d.Role != delegation.Delegate || d.Delegate != "clerk" || d.State != "live" {
		t.Errorf("%+v", d)
	}
	if want := []delegation.Right{delegation.ViewBills, delegation.PayBills}; !slices.Equal(d.Scope.Rights, want) {
		t.Errorf("rights %v, want %v: who pays sees", d.Scope.Rights, want)
	}
	if want := []string{"parking", "water"}; !slices.Equal(d.Scope.Departments, want) {
		t.Errorf("departments %v, want %v", d.Scope.Departments, want)
	}
	if len(d.Limits) != 2 || d.Limits[0] != (delegation.Limit{ID: given, PerPayment: 50000, PerMonth: 100000}) || d.Limits[1] != (delegation.Limit{ID: right}) {
		t.Errorf("limits %+v", d.Limits)
	}
	if m := w.mail("acting-accepted"); m.To != "resident:"+owner.ID || m.Data["delegate"] != "clerk" || m.Lang != "fr" {
		t.Errorf("the owner is told %+v", m)
	}
	held, err := w.Held(t.Context(), clerk.ID)
	must(t, err)
	listed, err := w.Given(t.Context(), owner.ID)
	must(t, err)
	if len(held) != 1 || held[0].ID != given || len(listed) != 1 || listed[0].ID != given {
		t.Errorf("held %+v, given %+v", held, listed)
	}

	must(t, w.Revoke(t.Context(), owner.ID, given))
	if w.live(clerk, given) {
		t.Error("revoked, and still in force")
	}
	w.is(w.Revoke(t.Context(), owner.ID, given), delegation.ErrNotFound)
	if m := w.mail("acting-ended"); m.To != "resident:"+clerk.ID {
		t.Errorf("told of the end: %s", m.To)
	}
	var actions []string
	one, err := w.One(t.Context(), clerk.ID, given)
	must(t, err)
	history, err := w.History(t.Context(), one)
	must(t, err)
	for _, e := range history {
		actions = append(actions, e.Action)
	}
	if want := []string{"delegation.revoked", "delegation.accepted", "delegation.invited"}; !slices.Equal(actions, want) {
		t.Errorf("history %v, want %v", actions, want)
	}
	again := w.give(owner, right, clerk, w.scope())
	if !w.live(clerk, again) {
		t.Error("a right that ended cannot be given again")
	}
}

func TestNamesNumbersAndBirthDatesAreSealed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	owner := w.resident("owner@example.ca")
	w.business(owner)
	_, err := w.AddChild(t.Context(), owner.ID, "Petit Démo", clock.Date{Year: 2015, Month: 3, Day: 9})
	must(t, err)
	_, err = w.Invite(t.Context(), delegation.Invitation{By: owner, Scope: w.scope(), Email: "secret@example.ca", Lang: "en"})
	must(t, err)
	var dump string
	must(t, w.db.QueryRow(t.Context(), `
		select string_agg(t, ' ') from (select p::text from identity.party p union all select d::text from identity.delegation d union all select a::text from ops.audit a) x (t)`).Scan(&dump))
	for _, secret := range []string{"Boulangerie", "100000009", "Petit", "2015", "secret@", "owner@"} {
		if strings.Contains(dump, secret) {
			t.Errorf("%q can be read in the database: %s", secret, dump)
		}
	}
	if !strings.Contains(dump, "2033-03-08") {
		t.Errorf("the day before the child comes of age is not stored: %s", dump)
	}
}

func TestInvitationIsBoundSingleUseAndShort(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	owner, clerk, stranger := w.resident("owner@example.ca"), w.resident("clerk@example.ca"), w.resident("stranger@example.ca")
	right := w.business(owner)
	invite := func(email string) delegation.Invited {
		t.Helper()
		invited, err := w.Invite(t.Context(), delegation.Invitation{By: owner, Under: right, Scope: w.scope(), Email: email, Lang: "en"})
		must(t, err)
		return invited
	}
	accept := func(by identity.Person, secret string) error {
		_, err := w.Accept(t.Context(), delegation.Answer{By: by, Secret: secret, Visitor: visitor})
		return err
	}
	mailed := invite("CLERK@example.ca")
	if m := w.mail("acting-invitation"); !strings.HasPrefix(m.To, "contact:") || m.Data["link"] != "https://pay.example.ca/acting/invitation/"+mailed.Secret || m.Data["party"] != "Boulangerie Démo" {
		t.Errorf("mail %+v", m)
	}
	w.is(accept(stranger, mailed.Secret), delegation.ErrInvitation)
	w.is(accept(owner, mailed.Secret), delegation.ErrInvitation)
	weak := clerk
	weak.ACR = 1
	w.is(accept(weak, mailed.Secret), delegation.ErrAssurance)
	_, err := w.Look(t.Context(), delegation.Answer{By: stranger, Secret: mailed.Secret, Visitor: visitor})
	w.is(err, delegation.ErrInvitation)
	seen, err := w.Look(t.Context(), delegation.Answer{By: clerk, Secret: mailed.Secret, Visitor: visitor})
	must(t, err)
	if seen.Party.Name != "Boulangerie Démo" || seen.State != "invited" {
		t.Errorf("the invited person sees %+v", seen)
	}
	must(t, accept(clerk, mailed.Secret))
	w.is(accept(clerk, mailed.Secret), delegation.ErrInvitation)
	w.is(accept(clerk, invite(clerk.Email).Secret), delegation.ErrAlready)

	late := invite("stranger@example.ca")
	w.at = late.OpenUntil
	w.is(accept(stranger, late.Secret), delegation.ErrInvitation)
	code := invite("")
	if !code.OpenUntil.Equal(w.at.Add(15*time.Minute)) || len(code.Secret) != 10 {
		t.Errorf("code %+v", code)
	}
	withdrawn := invite("")
	must(t, w.Revoke(t.Context(), owner.ID, withdrawn.ID))
	w.is(accept(stranger, withdrawn.Secret), delegation.ErrInvitation)
	w.is(accept(stranger, "nonsense"), delegation.ErrInvitation)
	must(t, accept(stranger, strings.ToLower(id.Group(code.Secret))))

	declined := invite("")
	must(t, w.Decline(t.Context(), delegation.Answer{By: w.resident("third@example.ca"), Secret: declined.Secret, Visitor: visitor}))
	w.is(w.Decline(t.Context(), delegation.Answer{By: clerk, Secret: declined.Secret, Visitor: visitor}), delegation.ErrInvitation)
}

func TestAcceptedAtTheSameMomentCountsOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	owner := w.resident("owner@example.ca")
	invited, err := w.Invite(t.Context(), delegation.Invitation{By: owner, Scope: w.scope(), Lang: "en"})
	must(t, err)
	people := []identity.Person{w.resident("a@example.ca"), w.resident("b@example.ca"), w.resident("c@example.ca"), w.resident("d@example.ca")}
	errs := make([]error, len(people))
	var wg sync.WaitGroup
	for i, p := range people {
		wg.Go(func() {
			_, errs[i] = w.Accept(t.Context(), delegation.Answer{By: p, Secret: invited.Secret, Visitor: visitor})
		})
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else {
			w.is(err, delegation.ErrInvitation)
		}
	}
	if won != 1 {
		t.Errorf("%d accepted, want 1: %v", won, errs)
	}
}

func TestCodesCannotBeGuessed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	owner, guesser := w.resident("owner@example.ca"), w.resident("guesser@example.ca")
	invited, err := w.Invite(t.Context(), delegation.Invitation{By: owner, Scope: w.scope(), Lang: "en"})
	must(t, err)
	for range 10 {
		_, err := w.Look(t.Context(), delegation.Answer{By: guesser, Secret: id.Code(9), Visitor: visitor})
		w.is(err, delegation.ErrInvitation)
	}
	_, err = w.Accept(t.Context(), delegation.Answer{By: guesser, Secret: invited.Secret, Visitor: visitor})
	if !errors.As(err, new(*identity.LimitedError)) {
		t.Errorf("the eleventh try: %v", err)
	}
}

func TestInvitingTellsNobodyWhoHasAnAccount(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	owner := w.resident("owner@example.ca")
	w.resident("known@example.ca")
	shape := func(email string) string {
		invited, err := w.Invite(t.Context(), delegation.Invitation{By: owner, Scope: w.scope(), Email: email, Lang: "en"})
		m := w.mail("acting-invitation")
		kind, _, _ := strings.Cut(m.To, ":")
		return fmt.Sprint(err, len(invited.Secret), invited.OpenUntil.Sub(w.at), kind, m.Data["until"])
	}
	if known, unknown := shape("known@example.ca"), shape("unknown@example.ca"); known != unknown {
		t.Errorf("known %s, unknown %s", known, unknown)
	}
	for range 2 {
		shape("known@example.ca")
	}
	_, err := w.Invite(t.Context(), delegation.Invitation{By: owner, Scope: w.scope(), Email: "known@example.ca", Lang: "en"})
	if !errors.As(err, new(*identity.LimitedError)) {
		t.Errorf("the fourth mail of a day to one address: %v", err)
	}
}

func TestADelegateCannotWiden(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	owner, clerk, third := w.resident("owner@example.ca"), w.resident("clerk@example.ca"), w.resident("third@example.ca")
	right := w.business(owner)
	scope := w.scope()
	scope.Departments, scope.MayDelegate = []string{"parking", "water"}, true
	given := w.give(owner, right, clerk, scope)
	scope.MayDelegate = false
	for name, change := range map[string]func(*delegation.Scope){
		"another right":           func(s *delegation.Scope) { s.Rights = []delegation.Right{delegation.ManageFiles} },
		"another department":      func(s *delegation.Scope) { s.Departments = []string{"permits"} },
		"every department":        func(s *delegation.Scope) { s.Departments = nil },
		"one cent more":           func(s *delegation.Scope) { s.PerPayment++ },
		"no limit to a payment":   func(s *delegation.Scope) { s.PerPayment = 0 },
		"one cent more a month":   func(s *delegation.Scope) { s.PerMonth++ },
		"no limit to a month":     func(s *delegation.Scope) { s.PerMonth = 0 },
		"one day longer":          func(s *delegation.Scope) { s.Until = s.Until.AddDays(1) },
		"passing it on once more": func(s *delegation.Scope) { s.MayDelegate = true },
	} {
		wider := scope
		change(&wider)
		_, err := w.Invite(t.Context(), delegation.Invitation{By: clerk, Under: given, Scope: wider, Lang: "en"})
		if !errors.Is(err, delegation.ErrNotAllowed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	passed := w.give(clerk, given, third, scope)
	d, err := w.Live(t.Context(), third.ID, passed)
	must(t, err)
	if len(d.Limits) != 3 || d.Limits[1].ID != right || d.Limits[2] != (delegation.Limit{ID: given, PerPayment: 50000, PerMonth: 100000}) {
		t.Errorf("what is paid counts towards %+v", d.Limits)
	}
	_, err = w.Invite(t.Context(), delegation.Invitation{By: third, Under: passed, Scope: scope, Lang: "en"})
	w.is(err, delegation.ErrNotAllowed)
	_, err = w.Invite(t.Context(), delegation.Invitation{By: third, Under: given, Scope: scope, Lang: "en"})
	w.is(err, delegation.ErrEnded) // somebody else's right

	w.is(w.Revoke(t.Context(), third.ID, given), delegation.ErrNotFound)
	open, err := w.Invite(t.Context(), delegation.Invitation{By: clerk, Under: given, Scope: scope, Lang: "en"})
	must(t, err)
	must(t, w.Revoke(t.Context(), clerk.ID, given)) // the delegate's own side
	if w.live(third, passed) || w.live(clerk, given) {
		t.Error("what was passed on outlives what it was passed on from")
	}
	_, err = w.Accept(t.Context(), delegation.Answer{By: w.resident("fourth@example.ca"), Secret: open.Secret, Visitor: visitor})
	w.is(err, delegation.ErrInvitation)
	if !w.live(owner, right) {
		t.Error("the owner's right ended with the delegate's")
	}
}

func TestScopeHasAnEndOfTwoYears(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	owner := w.resident("owner@example.ca")
	right := w.business(owner)
	for name, test := range map[string]struct {
		change func(*delegation.Scope)
		want   error
	}{
		"two years":             {func(s *delegation.Scope) { s.Until = clock.Date{Year: 2028, Month: 11, Day: 24} }, nil},
		"a day more":            {func(s *delegation.Scope) { s.Until = clock.Date{Year: 2028, Month: 11, Day: 25} }, delegation.ErrScope},
		"today":                 {func(s *delegation.Scope) { s.Until = w.today() }, nil},
		"yesterday":             {func(s *delegation.Scope) { s.Until = w.today().AddDays(-1) }, delegation.ErrScope},
		"no end":                {func(s *delegation.Scope) { s.Until = clock.Date{} }, delegation.ErrScope},
		"no right":              {func(s *delegation.Scope) { s.Rights = nil }, delegation.ErrScope},
		"a right that is none":  {func(s *delegation.Scope) { s.Rights = []delegation.Right{"bills:*"} }, delegation.ErrScope},
		"a limit below nothing": {func(s *delegation.Scope) { s.PerMonth = -1 }, delegation.ErrScope},
	} {
		scope := w.scope()
		test.change(&scope)
		_, err := w.Invite(t.Context(), delegation.Invitation{By: owner, Under: right, Scope: scope, Lang: "en"})
		if !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
	// The database holds the line by itself.
	_, err := w.db.Exec(t.Context(), `
		insert into identity.delegation (id, party_id, role, rights, may_delegate, until, invited_by, invited_at)
		select $1, party_id, 'delegate', rights, false, (invited_at + interval '2 years 2 days')::date, invited_by, invited_at from identity.delegation where id = $2`, id.New(), right)
	if pg := new(pgconn.PgError); !errors.As(err, &pg) || pg.ConstraintName != "delegation_two_years" {
		t.Errorf("two years and two days in the database: %v", err)
	}
}

func TestWhatWasGivenNeverChanges(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	owner, clerk := w.resident("owner@example.ca"), w.resident("clerk@example.ca")
	given := w.give(owner, w.business(owner), clerk, w.scope())
	if _, err := w.db.Exec(t.Context(), `update identity.delegation set per_month_cents = 1e9 where id = $1`, given); err == nil {
		t.Error("the service can widen a right")
	}
	must(t, w.Revoke(t.Context(), clerk.ID, given))
	_, err := w.db.Exec(t.Context(), `update identity.delegation set ended_at = null, ended_by = '', ended_why = '' where id = $1`, given)
	if err == nil {
		t.Error("a right can come back from its end")
	}
}

func TestAChildComesOfAge(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	parent, other := w.resident("parent@example.ca"), w.resident("other@example.ca")
	for _, born := range []clock.Date{{Year: 2008, Month: 11, Day: 24}, {Year: 2026, Month: 11, Day: 25}} {
		if _, err := w.AddChild(t.Context(), parent.ID, "Démo", born); !errors.Is(err, delegation.ErrBadBirth) {
			t.Errorf("born %s: %v", born, err)
		}
	}
	right, err := w.AddChild(t.Context(), parent.ID, "Petit Démo", clock.Date{Year: 2008, Month: 12, Day: 24})
	must(t, err)
	scope := w.scope()
	_, err = w.Invite(t.Context(), delegation.Invitation{By: parent, Under: right, Scope: scope, Lang: "en"})
	w.is(err, delegation.ErrNotAllowed) // it would outlast the link itself
	scope.Until = clock.Date{Year: 2026, Month: 12, Day: 23}
	passed := w.give(parent, right, other, scope)
	w.at = time.Date(2026, time.December, 24, 4, 59, 59, 0, time.UTC) // the last second of the 23rd, in Ottawa
	if !w.live(parent, right) || !w.live(other, passed) {
		t.Error("the link ended before the birthday")
	}
	w.at = w.at.Add(time.Second)
	if w.live(parent, right) || w.live(other, passed) {
		t.Error("the link outlives the eighteenth birthday")
	}
}

func TestAClosedAccountActsForNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	mother, son := w.resident("mother@example.ca"), w.resident("son@example.ca")
	given := w.give(mother, "", son, w.scope())
	d, err := w.Live(t.Context(), son.ID, given)
	must(t, err)
	if d.Party.ID != mother.ID || d.Party.Name != "mother" || d.Party.Proof != delegation.Account || d.Party.Type != delegation.Person {
		t.Errorf("%+v", d.Party)
	}
	for _, who := range []identity.Person{son, mother} {
		set := func(state string) {
			_, err := w.db.Exec(t.Context(), `update identity.resident set state = $2 where id = $1`, who.ID, state)
			must(t, err)
		}
		set("suspended")
		if w.live(son, given) {
			t.Errorf("in force while %s is suspended", who.Name)
		}
		set("active")
	}
	if !w.live(son, given) {
		t.Error("not in force after both are back")
	}
}

func TestSwitchGivesTheSessionANewToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	owner := w.resident("owner@example.ca")
	clerk, token := w.signUp("clerk@example.ca")
	clerk.ACR = 2
	given := w.give(owner, w.business(owner), clerk, w.scope())
	_, err := w.Switch(t.Context(), clerk, token, id.New())
	w.is(err, delegation.ErrEnded)
	fresh, err := w.Switch(t.Context(), clerk, token, given)
	must(t, err)
	if _, err := w.people.Session(t.Context(), token); !errors.Is(err, identity.ErrNoSession) {
		t.Errorf("the old token: %v", err)
	}
	p, err := w.people.Session(t.Context(), fresh)
	must(t, err)
	if p.ActingID != given || p.ID != clerk.ID || p.SessionID != clerk.SessionID {
		t.Errorf("session %+v", p)
	}
	_, err = w.Switch(t.Context(), clerk, token, "")
	w.is(err, identity.ErrNoSession)
	back, err := w.Switch(t.Context(), p, fresh, "")
	must(t, err)
	if p, err = w.people.Session(t.Context(), back); err != nil || p.ActingID != "" {
		t.Errorf("back: %+v, %v", p, err)
	}
}

func TestTendEndsLapsesAndReminds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	owner, clerk := w.resident("owner@example.ca"), w.resident("clerk@example.ca")
	right := w.business(owner)
	given := w.give(owner, right, clerk, w.scope())
	short := w.scope()
	short.Until = w.today().AddDays(20)
	w.give(owner, "", clerk, short)
	open, err := w.Invite(t.Context(), delegation.Invitation{By: owner, Under: right, Scope: w.scope(), Email: "x@example.ca", Lang: "en"})
	must(t, err)
	tend := func(want int64) {
		t.Helper()
		n, err := w.Tend(t.Context())
		if err != nil || n != want {
			t.Fatalf("tended %d, %v; want %d", n, err, want)
		}
	}
	tend(0)
	w.at = w.at.AddDate(0, 0, 59)
	tend(2) // the short one has ended, the invitation lapsed
	w.at = w.at.AddDate(0, 0, 1)
	before := len(w.mails)
	tend(1)
	tend(0)
	if sent := w.mails[before:]; len(sent) != 2 || sent[0].Template != "acting-reminder" || sent[0].Data["until"] != "2027-02-22" || sent[0].To == sent[1].To {
		t.Errorf("reminders %+v", sent)
	}
	w.at = w.at.AddDate(0, 0, 31)
	tend(1)
	for _, want := range []struct{ right, why string }{{given, "expired"}, {open.ID, "lapsed"}} {
		d, err := w.One(t.Context(), owner.ID, want.right)
		if err != nil || d.EndedWhy != want.why || d.State != "ended" {
			t.Errorf("%+v, %v; want %s", d, err, want.why)
		}
	}
}

func TestEstatesNeedADocumentAndTwoPeople(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	executor := w.resident("executor@example.ca")
	agent, supervisor := id.New(), id.New()
	n := delegation.Registration{
		By: agent, Type: delegation.Estate, Name: "Estate of Demo", Delegate: "EXECUTOR@example.ca", Scope: w.scope(),
		FileName: "will.pdf", File: []byte("%PDF-1.7 demo"),
	}
	for name, change := range map[string]func(*delegation.Registration){
		"no document": func(n *delegation.Registration) { n.File = nil },
		"no account":  func(n *delegation.Registration) { n.Delegate = "nobody@example.ca" },
		"no name":     func(n *delegation.Registration) { n.Name = " " },
		"no end":      func(n *delegation.Registration) { n.Scope.Until = clock.Date{} },
		"oneself": func(n *delegation.Registration) {
			n.Type, n.Represented = delegation.Person, "executor@example.ca"
		},
	} {
		bad := n
		change(&bad)
		if right, err := w.Register(t.Context(), bad); err == nil {
			t.Errorf("%s: registered as %s", name, right)
		}
	}
	right, err := w.Register(t.Context(), n)
	must(t, err)
	if w.live(executor, right) {
		t.Fatal("in force before a second person has looked")
	}
	waiting, err := w.Waiting(t.Context())
	must(t, err)
	if len(waiting) != 1 || waiting[0].Party.Name != "Estate of Demo" || waiting[0].RequestedBy != agent || waiting[0].State != "waiting" || len(waiting[0].Files) != 1 {
		t.Fatalf("waiting %+v", waiting)
	}
	w.is(w.Approve(t.Context(), delegation.Decision{ID: right, By: agent}), approval.ErrSamePerson)
	// Not only the program refuses: the database does.
	_, err = w.db.Exec(t.Context(), `
		update ops.approval set decision = 'approved', decided_by = requested_by, decided_at = requested_at where id = $1`, waiting[0].ApprovalID)
	if pg := new(pgconn.PgError); !errors.As(err, &pg) || pg.ConstraintName != "approval_two_persons" {
		t.Errorf("one person in the database: %v", err)
	}
	must(t, w.Approve(t.Context(), delegation.Decision{ID: right, By: supervisor}))
	w.is(w.Approve(t.Context(), delegation.Decision{ID: right, By: supervisor}), delegation.ErrNotFound)
	d, err := w.Live(t.Context(), executor.ID, right)
	must(t, err)
	if d.Role != delegation.Executor || d.Party.Type != delegation.Estate || d.Party.Proof != delegation.Document || d.Scope.MayDelegate {
		t.Errorf("%+v", d)
	}
	if m := w.mail("acting-granted"); m.To != "resident:"+executor.ID || m.Data["until"] != d.Scope.Until.String() {
		t.Errorf("mail %+v", m)
	}

	mother := w.resident("mother@example.ca")
	n.Type, n.Represented = delegation.Person, mother.Email
	refused, err := w.Register(t.Context(), n)
	must(t, err)
	w.is(w.Refuse(t.Context(), delegation.Decision{ID: refused, By: agent}), approval.ErrSamePerson)
	must(t, w.Refuse(t.Context(), delegation.Decision{ID: refused, By: supervisor, Reason: "not signed"}))
	if w.live(executor, refused) {
		t.Error("refused, and in force")
	}
	granted, err := w.Register(t.Context(), n)
	must(t, err)
	must(t, w.Approve(t.Context(), delegation.Decision{ID: granted, By: supervisor}))
	if d, err = w.Live(t.Context(), executor.ID, granted); err != nil || d.Party.ID != mother.ID || d.Role != delegation.Attorney {
		t.Errorf("%+v, %v", d, err)
	}
	must(t, w.Revoke(t.Context(), mother.ID, granted)) // the represented person can end it
}

func TestStrangersSeeNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	owner, clerk, stranger := w.resident("owner@example.ca"), w.resident("clerk@example.ca"), w.resident("stranger@example.ca")
	given := w.give(owner, w.business(owner), clerk, w.scope())
	_, err := w.One(t.Context(), stranger.ID, given)
	w.is(err, delegation.ErrNotFound)
	w.is(w.Revoke(t.Context(), stranger.ID, given), delegation.ErrNotFound)
	if w.live(stranger, given) {
		t.Error("a stranger acts under somebody else's right")
	}
	_, err = w.Invite(t.Context(), delegation.Invitation{By: stranger, Under: given, Scope: w.scope(), Lang: "en"})
	w.is(err, delegation.ErrEnded)
	for _, bad := range []string{"", "x", id.New()} {
		_, err := w.One(t.Context(), clerk.ID, bad)
		w.is(err, delegation.ErrNotFound)
		w.is(w.Revoke(t.Context(), clerk.ID, bad), delegation.ErrNotFound)
	}
}

func TestHowManyPartiesOnePersonDeclares(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	owner := w.resident("owner@example.ca")
	for i := range 20 {
		_, err := w.CreateBusiness(t.Context(), owner.ID, fmt.Sprint("Demo ", i), "")
		must(t, err)
	}
	_, err := w.CreateBusiness(t.Context(), owner.ID, "One more", "")
	w.is(err, delegation.ErrTooMany)
}
