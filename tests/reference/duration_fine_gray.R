# Fine and Gray by cmprsk on simulated rows, untied and tied; writes rows.csv where it runs.
library(cmprsk); set.seed(3); n<-200
x1<-rnorm(n); x2<-rbinom(n,1,.5); t1<-rexp(n,.05*exp(.5*x1-.3*x2)); t2<-rexp(n,.04*exp(-.2*x1)); c<-runif(n,2,30)
t<-pmin(t1,t2,c); s<-ifelse(c<=pmin(t1,t2),0,ifelse(t1<t2,1,2))
out<-list()
for (tied in c(FALSE,TRUE)) { tt<-if (tied) ceiling(t/3) else t
 f<-crr(tt,s,cbind(x1,x2),failcode=1,cencode=0,gtol=1e-12,maxiter=100)
 cat(tied, formatC(f$coef,digits=14), formatC(sqrt(diag(f$var)),digits=14), formatC(f$loglik,digits=14), formatC(f$loglik.null,digits=14), "\n")
 p<-predict(f,cbind(c(0,1),c(1,0))); i<-c(5,nrow(p)); cat(formatC(t(p[i,]),digits=12),"\n") }
write.csv(data.frame(t=t,s=s,x1=x1,x2=x2),"rows.csv",row.names=FALSE)
