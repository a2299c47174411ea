package stripe

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"time"

	"guichet/internal/clock"
)

// An instrument is what somebody pays with, as far as it may be kept: no number,
// only what a receipt may show, and how the test number is known to behave.
type instrument struct {
	Method  methodDetails `json:"method"`
	Decline string        `json:"decline,omitempty"` // decline code
	Dispute string        `json:"dispute,omitempty"` // reason of the dispute that follows
	Refunds string        `json:"refunds,omitempty"`
	Instant bool          `json:"instant,omitempty"` // money available at once
	Debit   string        `json:"debit,omitempty"`   // how and when a debit ends
}

const (
	refundFails = "fails" // succeeds, and fails some time later
	refundPends = "pends" // pending, and succeeds some time later

	debitSoon      = "succeeds"
	debitLater     = "succeeds later"
	debitFailsSoon = "fails"
	debitFailLater = "fails later"

	// someTime is how long what Stripe does "some time later" takes here.
	someTime = 3 * time.Minute
)

// A testCard is one of Stripe's documented test numbers.
type testCard struct {
	brand, funding, country string
	challenge               bool // asks for 3-D Secure first
	decline, dispute        string
	refunds                 string
	instant                 bool
	hint                    string // shown on the card page; "" for not shown
}

// testCards are the numbers the simulator takes. Every other number is declined as
// Stripe declines a real card in test mode.
var testCards = map[string]testCard{
	"4242424242424242": {brand: "visa", funding: "credit", country: "US", hint: "ok"},
	"4000001240000000": {brand: "visa", funding: "credit", country: "CA"},
	"4000056655665556": {brand: "visa", funding: "debit", country: "US"},
	"5555555555554444": {brand: "mastercard", funding: "credit", country: "US"},
	"5200828282828210": {brand: "mastercard", funding: "debit", country: "US"},
	"5105105105105100": {brand: "mastercard", funding: "prepaid", country: "US", hint: "prepaid"},
	"378282246310005":  {brand: "amex", funding: "credit", country: "US"},

	"4000000000000002": {brand: "visa", funding: "credit", country: "US", decline: "generic_decline", hint: "declined"},
	"4000000000009995": {brand: "visa", funding: "credit", country: "US", decline: "insufficient_funds", hint: "no funds"},
	"4000000000009987": {brand: "visa", funding: "credit", country: "US", decline: "lost_card"},
	"4000000000009979": {brand: "visa", funding: "credit", country: "US", decline: "stolen_card"},
	"4000000000000069": {brand: "visa", funding: "credit", country: "US", decline: "expired_card"},
	"4000000000000127": {brand: "visa", funding: "credit", country: "US", decline: "incorrect_cvc"},
	"4000000000000119": {brand: "visa", funding: "credit", country: "US", decline: "processing_error"},

	"4000002500003155": {brand: "visa", funding: "credit", country: "US", challenge: true, hint: "3-D Secure"},
	"4000000000003220": {brand: "visa", funding: "credit", country: "US", challenge: true, hint: "3-D Secure 2"},
	"4000008400001629": {brand: "visa", funding: "credit", country: "US", challenge: true, decline: "generic_decline"},
	"4000008260003178": {brand: "visa", funding: "credit", country: "US", challenge: true, decline: "insufficient_funds"},

	"4000000000000259": {brand: "visa", funding: "credit", country: "US", dispute: "fraudulent", hint: "disputed"},
	"4000000000002685": {brand: "visa", funding: "credit", country: "US", dispute: "product_not_received"},

	"4000000000007726": {brand: "visa", funding: "credit", country: "US", refunds: refundPends},
	"4000000000005126": {brand: "visa", funding: "credit", country: "US", refunds: refundFails, hint: "refund fails"},

	"4000000000000077": {brand: "visa", funding: "credit", country: "US", instant: true},
}

// hinted are the cards that the page names, in its order.
var hinted = []string{
	"4242424242424242", "4000000000000002", "4000000000009995", "4000002500003155", "4000000000003220",
	"4000000000000259", "4000000000005126", "5105105105105100",
}

// testModeDecline is the decline code for a number that is no test number.
const testModeDecline = "test_mode_live_card"

// luhn checks the last digit of a card number (ISO/IEC 7812-1, annex B).
func luhn(number string) bool {
	sum := 0
	for i := range len(number) {
		d := int(number[len(number)-1-i] - '0')
		if i%2 == 1 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return sum%10 == 0
}

func digits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// strip removes what people type between digits.
func strip(s string) string {
	return strings.NewReplacer(" ", "", "-", "", "\u00a0", "").Replace(s)
}

// readCard turns the typed fields into an instrument, or names the fields that are
// wrong. The number itself goes no further than this function.
func readCard(number, expiry, cvc string, now time.Time) (in instrument, wrong []string) {
	number, cvc = strip(number), strip(cvc)
	if !digits(number) || len(number) < 13 || len(number) > 19 || !luhn(number) {
		wrong = append(wrong, "number")
	}
	month, year, ok := readExpiry(expiry, now)
	if !ok {
		wrong = append(wrong, "expiry")
	}
	card, known := testCards[number]
	wantCVC := 3
	if card.brand == "amex" {
		wantCVC = 4
	}
	if !digits(cvc) || len(cvc) != wantCVC {
		wrong = append(wrong, "cvc")
	}
	if len(wrong) > 0 {
		return instrument{}, wrong
	}
	if !known {
		card = testCard{brand: "unknown", funding: "unknown", country: "US", decline: testModeDecline}
	}
	in = instrument{Decline: card.decline, Dispute: card.dispute, Refunds: card.refunds, Instant: card.instant}
	in.Method = methodDetails{Type: "card", Card: &cardDetails{
		Brand: card.brand, Country: card.country, ExpMonth: month, ExpYear: year, Fingerprint: fingerprint(number),
		Funding: card.funding, Last4: number[len(number)-4:], Network: card.brand,
	}}
	if card.challenge {
		in.Method.Card.ThreeDSecure = &threeDSecure{AuthenticationFlow: "challenge", Version: "2.2.0"}
	}
	return in, nil
}

// challenged reports whether the card must go through 3-D Secure still.
func (in instrument) challenged() bool {
	c := in.Method.Card
	return c != nil && c.ThreeDSecure != nil && c.ThreeDSecure.Result == ""
}

// authenticated is the instrument after 3-D Secure was passed.
func (in instrument) authenticated() instrument {
	card := *in.Method.Card
	card.ThreeDSecure = &threeDSecure{AuthenticationFlow: "challenge", Result: "authenticated", Version: "2.2.0"}
	in.Method.Card = &card
	return in
}

// fingerprint names a number without giving it away. The numbers are public test
// numbers; a processor of real ones would need a key here.
func fingerprint(number string) string {
	sum := sha256.Sum256([]byte("guichet card simulator " + number))
	return hex.EncodeToString(sum[:])[:16]
}

// readExpiry reads MM/YY or MM/YYYY of a card that is still valid at now.
func readExpiry(s string, now time.Time) (month, year int, ok bool) {
	m, y, cut := strings.Cut(strip(s), "/")
	if !cut && len(m) == 4 { // typed without the slash
		m, y = m[:2], m[2:]
	}
	if !digits(m) || !digits(y) || len(m) > 2 || (len(y) != 2 && len(y) != 4) {
		return 0, 0, false
	}
	month, _ = strconv.Atoi(m)
	year, _ = strconv.Atoi(y)
	if len(y) == 2 {
		year += 2000
	}
	today := clock.DateOf(now)
	if month < 1 || month > 12 || year > today.Year+50 || year < today.Year || year == today.Year && month < int(today.Month) {
		return 0, 0, false
	}
	return month, year, true
}

// debitAccounts are Stripe's documented test accounts for pre-authorised debits,
// at institution 000, transit 11000. Micro-deposits are skipped.
var debitAccounts = map[string]string{
	"000123456789": debitSoon,
	"900123456789": debitLater,
	"000222222227": debitFailsSoon,
	"900222222227": debitFailLater,
}

// readDebit turns the typed bank account into an instrument.
func readDebit(institution, transit, account string) (in instrument, wrong []string) {
	institution, transit, account = strip(institution), strip(transit), strip(account)
	if !digits(institution) || len(institution) != 3 {
		wrong = append(wrong, "institution")
	}
	if !digits(transit) || len(transit) != 5 {
		wrong = append(wrong, "transit")
	}
	how, known := debitAccounts[account]
	if !known {
		wrong = append(wrong, "account")
	}
	if len(wrong) > 0 {
		return instrument{}, wrong
	}
	return instrument{Debit: how, Method: methodDetails{Type: "acss_debit", ACSSDebit: &debit{
		BankName: "STRIPE TEST BANK", Fingerprint: fingerprint(institution + transit + account),
		InstitutionNumber: institution, Last4: account[len(account)-4:], TransitNumber: transit,
	}}}, nil
}

// declineText is what Stripe's API says for a decline code, and the error code.
func declineText(decline string) (code, message string) {
	switch decline {
	case "insufficient_funds":
		return "card_declined", "Your card has insufficient funds."
	case "expired_card":
		return "expired_card", "Your card has expired."
	case "incorrect_cvc":
		return "incorrect_cvc", "Your card's security code is incorrect."
	case "processing_error":
		return "processing_error", "An error occurred while processing your card. Try again in a little bit."
	case testModeDecline:
		return "card_declined", "Your card was declined. Your request was in test mode, but used a non test (live) card. For a list of valid test cards, visit: https://stripe.com/docs/testing."
	case authenticationFailed:
		return "payment_intent_authentication_failure", "The provided PaymentMethod has failed authentication. You can provide payment_method_data or a new PaymentMethod to attempt to fulfill this PaymentIntent again."
	}
	return "card_declined", "Your card was declined."
}

// authenticationFailed stands for a 3-D Secure challenge that was not passed.
const authenticationFailed = "authentication_failed"
