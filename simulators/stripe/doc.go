// Package stripe stands in for the card processor: it speaks Stripe's HTTP API of
// version 2023-10-16, shows the hosted card page, sends signed webhooks and pays
// out to the bank, with a memory that survives kill -9.
//
//	guichet ──/v1──▶ Simulator ──webhooks──▶ guichet
//	payer ──/c/pay──▶    │ ╰────/_control/credits──▶ bank simulator
//	person ──/, /_control──▶
//
// Whoever talks to it uses Stripe's own client; nothing can tell that no card
// network is behind it. What it does not have it refuses, as Stripe refuses an
// unknown path or parameter: it never ignores. It keeps of a card what a receipt
// may show, never the number.
//
// # The API
//
// Form-encoded requests with nested keys; JSON answers; Stripe's errors;
// Idempotency-Key remembered for 24 hours with its first answer, also a 500;
// lists with limit, starting_after, ending_before and created[gte]…; expand[].
//
//	GET  /v1/balance, /v1/balance_transactions (payout, source, type, currency)
//	     /v1/charges, /v1/refunds, /v1/disputes, /v1/payouts, /v1/events,
//	     /v1/payment_intents, /v1/customers, /v1/checkout/sessions, each also by id
//	     /v1/checkout/sessions/{id}/line_items
//	POST /v1/checkout/sessions, /v1/checkout/sessions/{id}/expire
//	     /v1/payment_intents/{id}/capture, /v1/payment_intents/{id}/cancel
//	     /v1/refunds, /v1/refunds/{id}, /v1/refunds/{id}/cancel
//	     /v1/disputes/{id}, /v1/disputes/{id}/close
//	     /v1/customers, /v1/customers/{id}; DELETE /v1/customers/{id}
//
// A charge costs 2.9 % + 30 ¢ (Options), is available two business days later in
// Toronto, and goes out with the next automatic payout. Dates such as available_on
// and arrival_date are midnight UTC of the date, as Stripe's are.
//
// # The card page
//
// /c/pay/{session} works without JavaScript, in English or French by the session's
// locale. Its form fields are method (card), email, number, expiry (MM/YY), cvc and
// name; for a pre-authorised debit method (acss_debit), email, name, institution,
// transit and account. A decline stays on the page; success leads to success_url.
//
//	4242 4242 4242 4242  succeeds            4000 0025 0000 3155  3-D Secure first
//	5105 1051 0510 5100  a prepaid card      4000 0000 0000 3220  3-D Secure 2 first
//	4000 0000 0000 0002  declined            4000 0000 0000 0259  disputed afterwards
//	4000 0000 0000 9995  insufficient funds  4000 0000 0000 5126  a refund fails later
//	4000 0000 0000 7726  a refund is pending 4000 0000 0000 0077  available at once
//
// The rest are in testCards; every other number is declined. "Later" is 3 minutes
// by the simulator's clock. Debits from 000 11000: 000123456789 succeeds,
// 000222222227 fails, 900123456789 and 900222222227 do so later.
//
// # Faults
//
// Planted with POST /_control/faults {"kind", "target", "times", "every", "delay"}
// (see package control). The target of a fault of the API is a route, such as
// "POST /v1/checkout/sessions/{id}/expire"; of a webhook, the type of its event.
//
//	slow                               the API answers after the delay
//	error-500, bad-gateway, hang, cut  nothing is done, and no proper answer comes
//	the same with -after               all is done, and no proper answer comes
//	rate-limit                         429, nothing is done
//	decline                            the next card is declined; target: the code
//	webhook-delay, -duplicate, -drop   of each webhook they hit
//	webhook-hold                       kept until POST /_control/webhooks/release
//
// # Levers
//
// Errors are {"error": "a sentence"}; a body may be absent where all is optional.
//
//	GET  /_control/state                    what is stored, in numbers; undelivered webhooks
//	POST /_control/settle                   do everything that is due, then answer
//	POST /_control/payouts/run              {"until": "paid", "arrival_date", "currency"} → {"payout", "bank_told"};
//	                                        payout is null when nothing is due
//	POST /_control/payouts/{id}             {"status": "in_transit", "paid" or "failed", "failure_code"}
//	POST /_control/stray                    {"kind": "adjustment" or "charge", "amount_cents", "description",
//	                                        "available": true for at once} → the balance transaction
//	POST /_control/charges/{id}/dispute     {"amount_cents", "reason"}
//	POST /_control/disputes/{id}/close      {"won": true}
//	POST /_control/refunds/{id}             {"status": "failed", "succeeded" or "canceled"}
//	POST /_control/payment_intents/{id}     {"status": "succeeded" or "failed"}: ends a debit under way
//	POST /_control/webhooks/release         {"seed": 1} → {"events": in the order sent}
//	POST /_control/events/{id}/resend
//	POST /_control/events/{id}/forge        {"how": "signature", "old", "future" or "unsigned"}
//	                                        → {"answers": what each endpoint said}
//
// A payout that is paid is told to the bank simulator at Options.BankURL with
// POST /_control/credits {"amount_cents", "currency", "reference", "text",
// "value_date"}, again until it takes it; the reference is the payout's
// trace_id.value. A negative payout, or one returned after it was paid, is a
// negative amount.
package stripe
